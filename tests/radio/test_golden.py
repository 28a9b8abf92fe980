"""Every row of the published tables, as the standards print them, against ours."""

import csv
import re

import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.radio import tables
from netpredict.radio.counters import COUNTERS, PmCounter

N_RB_FR1 = """\
# n_rb FR1
mhz,khz15,khz30,khz60
5,25,11,0
10,52,24,11
15,79,38,18
20,106,51,24
25,133,65,31
30,160,78,38
35,188,92,44
40,216,106,51
45,242,119,58
50,270,133,65
60,0,162,79
70,0,189,93
80,0,217,107
90,0,245,121
100,0,273,135
"""

N_RB_FR2 = """\
# n_rb FR2
mhz,khz60,khz120
50,66,32
100,132,66
200,264,132
400,0,264
"""

CQI_TABLE_1 = """\
# cqi_table_1 TS 38.214 Table 5.2.2.1-2
index,qm,rate_x1024,efficiency
1,2,78,0.1523
2,2,120,0.2344
3,2,193,0.3770
4,2,308,0.6016
5,2,449,0.8770
6,2,602,1.1758
7,4,378,1.4766
8,4,490,1.9141
9,4,616,2.4063
10,6,466,2.7305
11,6,567,3.3223
12,6,666,3.9023
13,6,772,4.5234
14,6,873,5.1152
15,6,948,5.5547
"""

CQI_TABLE_2 = """\
# cqi_table_2 TS 38.214 Table 5.2.2.1-3
index,qm,rate_x1024,efficiency
1,2,78,0.1523
2,2,193,0.3770
3,2,449,0.8770
4,4,378,1.4766
5,4,490,1.9141
6,4,616,2.4063
7,6,466,2.7305
8,6,567,3.3223
9,6,666,3.9023
10,6,772,4.5234
11,6,873,5.1152
12,8,711,5.5547
13,8,797,6.2266
14,8,885,6.9141
15,8,948,7.4063
"""

CQI_TABLE_3 = """\
# cqi_table_3 TS 38.214 Table 5.2.2.1-4
index,qm,rate_x1024,efficiency
1,2,30,0.0586
2,2,50,0.0977
3,2,78,0.1523
4,2,120,0.2344
5,2,193,0.3770
6,2,308,0.6016
7,2,449,0.8770
8,2,602,1.1758
9,4,378,1.4766
10,4,490,1.9141
11,4,616,2.4063
12,6,466,2.7305
13,6,567,3.3223
14,6,666,3.9023
15,6,772,4.5234
"""

CQI_TABLE_4 = """\
# cqi_table_4 TS 38.214 Table 5.2.2.1-5
index,qm,rate_x1024,efficiency
1,2,78,0.1523
2,2,193,0.3770
3,2,449,0.8770
4,4,378,1.4766
5,4,616,2.4063
6,6,567,3.3223
7,6,666,3.9023
8,6,772,4.5234
9,6,873,5.1152
10,8,711,5.5547
11,8,797,6.2266
12,8,885,6.9141
13,8,948,7.4063
14,10,853,8.3301
15,10,948,9.2578
"""

PDSCH_MCS_TABLE_1 = """\
# pdsch_mcs_table_1 TS 38.214 Table 5.1.3.1-1
index,qm,rate_x1024,efficiency
0,2,120,0.2344
1,2,157,0.3066
2,2,193,0.3770
3,2,251,0.4902
4,2,308,0.6016
5,2,379,0.7402
6,2,449,0.8770
7,2,526,1.0273
8,2,602,1.1758
9,2,679,1.3262
10,4,340,1.3281
11,4,378,1.4766
12,4,434,1.6953
13,4,490,1.9141
14,4,553,2.1602
15,4,616,2.4063
16,4,658,2.5703
17,6,438,2.5664
18,6,466,2.7305
19,6,517,3.0293
20,6,567,3.3223
21,6,616,3.6094
22,6,666,3.9023
23,6,719,4.2129
24,6,772,4.5234
25,6,822,4.8164
26,6,873,5.1152
27,6,910,5.3320
28,6,948,5.5547
"""

PDSCH_MCS_TABLE_2 = """\
# pdsch_mcs_table_2 TS 38.214 Table 5.1.3.1-2
index,qm,rate_x1024,efficiency
0,2,120,0.2344
1,2,193,0.3770
2,2,308,0.6016
3,2,449,0.8770
4,2,602,1.1758
5,4,378,1.4766
6,4,434,1.6953
7,4,490,1.9141
8,4,553,2.1602
9,4,616,2.4063
10,4,658,2.5703
11,6,466,2.7305
12,6,517,3.0293
13,6,567,3.3223
14,6,616,3.6094
15,6,666,3.9023
16,6,719,4.2129
17,6,772,4.5234
18,6,822,4.8164
19,6,873,5.1152
20,8,682.5,5.3320
21,8,711,5.5547
22,8,754,5.8906
23,8,797,6.2266
24,8,841,6.5703
25,8,885,6.9141
26,8,916.5,7.1602
27,8,948,7.4063
"""

PDSCH_MCS_TABLE_3 = """\
# pdsch_mcs_table_3 TS 38.214 Table 5.1.3.1-3
index,qm,rate_x1024,efficiency
0,2,30,0.0586
1,2,40,0.0781
2,2,50,0.0977
3,2,64,0.1250
4,2,78,0.1523
5,2,99,0.1934
6,2,120,0.2344
7,2,157,0.3066
8,2,193,0.3770
9,2,251,0.4902
10,2,308,0.6016
11,2,379,0.7402
12,2,449,0.8770
13,2,526,1.0273
14,2,602,1.1758
15,4,340,1.3281
16,4,378,1.4766
17,4,434,1.6953
18,4,490,1.9141
19,4,553,2.1602
20,4,616,2.4063
21,6,438,2.5664
22,6,466,2.7305
23,6,517,3.0293
24,6,567,3.3223
25,6,616,3.6094
26,6,666,3.9023
27,6,719,4.2129
28,6,772,4.5234
"""

PDSCH_MCS_TABLE_4 = """\
# pdsch_mcs_table_4 TS 38.214 Table 5.1.3.1-4
index,qm,rate_x1024,efficiency
0,2,120,0.2344
1,2,193,0.3770
2,2,449,0.8770
3,4,378,1.4766
4,4,490,1.9141
5,4,616,2.4063
6,6,466,2.7305
7,6,517,3.0293
8,6,567,3.3223
9,6,616,3.6094
10,6,666,3.9023
11,6,719,4.2129
12,6,772,4.5234
13,6,822,4.8164
14,6,873,5.1152
15,8,682.5,5.3320
16,8,711,5.5547
17,8,754,5.8906
18,8,797,6.2266
19,8,841,6.5703
20,8,885,6.9141
21,8,916.5,7.1602
22,8,948,7.4063
23,10,805.5,7.8662
24,10,853,8.3301
25,10,900.5,8.7939
26,10,948,9.2578
"""

PUSCH_TP_MCS_TABLE_1 = """\
# pusch_tp_mcs_table_1 TS 38.214 Table 6.1.4.1-1 (q=2)
index,qm,rate_x1024,efficiency
0,2,120,0.2344
1,2,157,0.3066
2,2,193,0.3770
3,2,251,0.4902
4,2,308,0.6016
5,2,379,0.7402
6,2,449,0.8770
7,2,526,1.0273
8,2,602,1.1758
9,2,679,1.3262
10,4,340,1.3281
11,4,378,1.4766
12,4,434,1.6953
13,4,490,1.9141
14,4,553,2.1602
15,4,616,2.4063
16,4,658,2.5703
17,6,466,2.7305
18,6,517,3.0293
19,6,567,3.3223
20,6,616,3.6094
21,6,666,3.9023
22,6,719,4.2129
23,6,772,4.5234
24,6,822,4.8164
25,6,873,5.1152
26,6,910,5.3320
27,6,948,5.5547
"""

PUSCH_TP_MCS_TABLE_2 = """\
# pusch_tp_mcs_table_2 TS 38.214 Table 6.1.4.1-2 (q=2)
index,qm,rate_x1024,efficiency
0,2,30,0.0586
1,2,40,0.0781
2,2,50,0.0977
3,2,64,0.1250
4,2,78,0.1523
5,2,99,0.1934
6,2,120,0.2344
7,2,157,0.3066
8,2,193,0.3770
9,2,251,0.4902
10,2,308,0.6016
11,2,379,0.7402
12,2,449,0.8770
13,2,526,1.0273
14,2,602,1.1758
15,2,679,1.3262
16,4,378,1.4766
17,4,434,1.6953
18,4,490,1.9141
19,4,553,2.1602
20,4,616,2.4063
21,4,658,2.5703
22,4,699,2.7305
23,4,772,3.0156
24,6,567,3.3223
25,6,616,3.6094
26,6,666,3.9023
27,6,772,4.5234
"""

CQI_TO_MCS = """\
# cqi_to_mcs, same table number on both sides
cqi,t1,t2,t3,t4
1,0,0,0,0
2,0,1,2,1
3,2,3,4,2
4,4,5,6,3
5,6,7,8,5
6,8,9,10,8
7,11,11,12,10
8,13,13,14,12
9,15,15,16,14
10,18,17,18,16
11,20,19,20,18
12,22,21,22,20
13,24,23,24,22
14,26,25,26,24
15,28,27,28,26
"""

COUNTER_NAMES = """\
name,clause,object,method,kpm_unit
# load
RRU.PrbTotDl,5.1.1.2.1,NRCellDU,SI,%
RRU.PrbTotUl,5.1.1.2.2,NRCellDU,SI,%
RRU.PrbUsedDl,5.1.1.2.5,NRCellDU,SI,1
RRU.PrbUsedUl,5.1.1.2.7,NRCellDU,SI,1
RRU.PrbAvailDl,5.1.1.2.6,NRCellDU,SI,1
RRU.PrbAvailUl,5.1.1.2.8,NRCellDU,SI,1
RRU.MaxPrbUsedDl,5.1.1.2.9,NRCellDU,SI,1
RRU.MaxPrbUsedUl,5.1.1.2.10,NRCellDU,SI,1
# throughput
DRB.UEThpDl,5.1.1.3.1,NRCellDU,DER,kbps
DRB.UEThpUl,5.1.1.3.3,NRCellDU,DER,kbps
DRB.UEUnresVolDl,5.1.1.3.5,NRCellDU,SI,%
DRB.UEUnresVolUl,5.1.1.3.6,NRCellDU,SI,%
# volume
DRB.PdcpSduVolumeDL,5.1.2.1.1.1,NRCellCU,CC,kbit
DRB.PdcpSduVolumeUL,5.1.2.1.2.1,NRCellCU,CC,kbit
QosFlow.PdcpPduVolumeDL,5.1.3.6.1.1,NRCellCU+GNBCUUP,CC,kbit
QosFlow.PdcpPduVolumeUL,5.1.3.6.1.2,NRCellCU+GNBCUUP,CC,kbit
DRB.RlcSduTransmittedVolumeDL,7.10.1,NRCellDU,CC,kbit
DRB.RlcSduTransmittedVolumeUL,7.10.2,NRCellDU,CC,kbit
# users
RRC.ConnMean,5.1.1.4.1,NRCellCU,SI,1
RRC.ConnMax,5.1.1.4.2,NRCellCU,SI,1
DRB.MeanActiveUeDl,5.1.1.23.1,NRCellDU,DER,1
DRB.MeanActiveUeUl,5.1.1.23.3,NRCellDU,DER,1
DRB.MaxActiveUeDl,5.1.1.23.2,NRCellDU,DER,1
# delay
DRB.AirIfDelayDl,5.1.1.1.1,NRCellDU,DER,0.1ms
DRB.AirIfDelayUl,5.1.1.1.3,NRCellDU,DER,0.1ms
DRB.RlcDelayUl,5.1.1.1.4,NRCellDU,DER,0.1ms
DRB.RlcSduDelayDl,5.1.3.3.3,NRCellDU,DER,0.1ms
DRB.PdcpSduDelayDl,5.1.3.3.1,GNBCUUP,DER,0.1ms
# loss
DRB.PacketLossRateUl,5.1.3.1.1,NRCellCU+GNBCUUP,SI,1
DRB.PdcpPacketDropRateDl,5.1.3.2.1,NRCellCU+GNBCUUP,SI,1
DRB.RlcPacketDropRateDl,5.1.3.2.2,NRCellDU,SI,1
# mobility
MM.HoPrepInterReq,5.1.1.6.1.1,NRCellCU+Rel,CC,1
MM.HoPrepInterSucc,5.1.1.6.1.2,NRCellCU+Rel,CC,1
MM.HoExeInterReq,5.1.1.6.1.7,NRCellCU+Rel,CC,1
MM.HoExeInterSucc,5.1.1.6.1.8,NRCellCU+Rel,CC,1
MM.HoExeInterFail,5.1.1.6.1.9,NRCellCU+Rel,CC,1
MM.HoExeInterReq.TimeMean,5.1.1.6.1.10,NRCellCU,DER,ms
MM.HoExeInterReq.TimeMax,5.1.1.6.1.11,NRCellCU,DER,ms
MM.HoPrepIntraReq,5.1.3.7.1.1,NRCellCU,CC,1
MM.HoPrepIntraSucc,5.1.3.7.1.2,NRCellCU,CC,1
MM.HoExeIntraReq,5.1.1.6.2.1,NRCellCU+Rel,CC,1
MM.HoExeIntraSucc,5.1.1.6.2.2,NRCellCU+Rel,CC,1
HO.IntraSys.TooEarly,5.1.1.25.1,NRCellCU+Rel,CC,1
HO.IntraSys.TooLate,5.1.1.25.1,NRCellCU+Rel,CC,1
HO.IntraSys.ToWrongCell,5.1.1.25.1,NRCellCU+Rel,CC,1
HO.InterSys.PingPong,5.1.1.25.4,NRCellCU+EutranRel,CC,1
RRC.ReEstabAtt,5.1.1.17.1,NRCellCU,CC,1
# link
TB.TotNbrDlInitial,5.1.1.7.1,NRCellDU,CC,1
TB.IntialErrNbrDl,5.1.1.7.2,NRCellDU,CC,1
TB.TotNbrDl,5.1.1.7.3,NRCellDU,CC,1
TB.ErrTotNbrDl,5.1.1.7.4,NRCellDU,CC,1
TB.ResidualErrNbrDl,5.1.1.7.5,NRCellDU,CC,1
TB.TotNbrUlInit,5.1.1.7.6,NRCellDU,CC,1
TB.ErrNbrUlInitial,5.1.1.7.7,NRCellDU,CC,1
TB.TotNbrUl,5.1.1.7.8,NRCellDU,CC,1
TB.ErrTotNbrUl,5.1.1.7.9,NRCellDU,CC,1
TB.ResidualErrNbrUl,5.1.1.7.10,NRCellDU,CC,1
CARR.WBCQIDist,5.1.1.11.1,NRCellDU,CC,1
CARR.PDSCHMCSDist,5.1.1.12.1,NRCellDU,CC,1
CARR.PUSCHMCSDist,5.1.1.12.2,NRCellDU,CC,1
CARR.AverageLayersDl,5.1.1.30.5,NRCellDU,SI,1
# radio
L1M.SS-RSRP,5.1.1.22.1,BEAM,CC,1
L1M.SS-RSRPNrNbr,5.1.1.22.2,NRCellCU+Rel,CC,1
MR.NRScSSRSRQ,5.1.1.31.1,NRCellCU,CC,1
MR.SS-RSRQ,5.1.1.31.3,NRCellCU+Rel,CC,1
MR.NRScSSSINR,5.1.1.32.1,NRCellCU,CC,1
MR.SS-SINR,5.1.1.32.3,NRCellCU+Rel,CC,1
L1M.DL-SS-RSRP,7.10.7,NRCellDU,DER,index
L1M.DL-SS-SINR,7.10.8,NRCellDU,DER,index
# energy
PEE.AvgPower,5.1.1.19.2.1,E2_Node,SI,W
PEE.Energy,5.1.1.19.3,E2_Node,SI,kWh
CARR.MaxTxPwr,5.1.1.29.1,NRCellDU,SI,dBm
"""

ROWS_BY_TABLE = {
    "cqi 1": (CQI_TABLE_1, tables.cqi_rows(1)),
    "cqi 2": (CQI_TABLE_2, tables.cqi_rows(2)),
    "cqi 3": (CQI_TABLE_3, tables.cqi_rows(3)),
    "cqi 4": (CQI_TABLE_4, tables.cqi_rows(4)),
    "pdsch 1": (PDSCH_MCS_TABLE_1, tables.mcs_rows(1)),
    "pdsch 2": (PDSCH_MCS_TABLE_2, tables.mcs_rows(2)),
    "pdsch 3": (PDSCH_MCS_TABLE_3, tables.mcs_rows(3)),
    "pdsch 4": (PDSCH_MCS_TABLE_4, tables.mcs_rows(4)),
    "pusch tp 1": (PUSCH_TP_MCS_TABLE_1, tables.pusch_tp_mcs_rows(1)),
    "pusch tp 2": (PUSCH_TP_MCS_TABLE_2, tables.pusch_tp_mcs_rows(2)),
}
EFFICIENCY_BY_TABLE = {
    **{f"cqi {table}": tables.cqi_efficiency(table) for table in (1, 2, 3, 4)},
    **{f"pdsch {table}": tables.mcs_efficiency(table) for table in (1, 2, 3, 4)},
    **{f"pusch tp {table}": tables.pusch_tp_mcs_efficiency(table) for table in (1, 2)},
}


def published(block):
    return list(csv.DictReader(line for line in block.splitlines() if line[0] != "#"))


@pytest.mark.parametrize("name", ROWS_BY_TABLE)
def test_every_published_row_is_ours_and_no_other(name):
    block, ours = ROWS_BY_TABLE[name]
    theirs = {
        int(row["index"]): tables.Row(int(row["qm"]), float(row["rate_x1024"]), float(row["efficiency"]))
        for row in published(block)
    }
    first = 1 if name.startswith("cqi") else 0
    assert theirs == dict(enumerate(ours[first:], start=first))


@pytest.mark.parametrize("name", ROWS_BY_TABLE)
def test_every_published_efficiency_is_read_by_its_index(name):
    rows = published(ROWS_BY_TABLE[name][0])
    indices = np.array([int(row["index"]) for row in rows])
    theirs = np.array([float(row["efficiency"]) for row in rows])
    ours = EFFICIENCY_BY_TABLE[name]
    np.testing.assert_array_equal(ours[indices], theirs)
    others = np.setdiff1d(np.arange(len(ours)), indices)
    np.testing.assert_array_equal(ours[others], 0.0 if name.startswith("cqi") else np.nan)


@pytest.mark.parametrize("name", ROWS_BY_TABLE)
def test_every_published_efficiency_follows_from_its_row(name):
    for row in published(ROWS_BY_TABLE[name][0]):
        assert tables.efficiency(int(row["qm"]), float(row["rate_x1024"])) == float(row["efficiency"])


@pytest.mark.parametrize(("block", "frequency_range"), [(N_RB_FR1, "FR1"), (N_RB_FR2, "FR2")])
def test_every_published_resource_block_count_is_ours(block, frequency_range):
    for row in published(block):
        mhz = int(row.pop("mhz"))
        for column, count in row.items():
            khz = int(re.sub("khz", "", column))
            if int(count):
                assert tables.n_rb(mhz, khz, frequency_range) == int(count)
            else:
                with pytest.raises(ConfigError, match="is not allowed: use one of"):
                    tables.n_rb(mhz, khz, frequency_range)
    assert [int(row["mhz"]) for row in published(block)] == list(tables.N_RB[frequency_range])


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_every_published_cqi_has_its_mcs(table):
    ours = tables.cqi_to_mcs(table)
    assert [int(row[f"t{table}"]) for row in published(CQI_TO_MCS)] == ours[1:].tolist()
    assert [int(row["cqi"]) for row in published(CQI_TO_MCS)] == list(range(1, len(ours)))


def test_every_published_counter_is_ours_and_no_other():
    theirs = {row["name"]: PmCounter(**row) for row in published(COUNTER_NAMES)}
    assert theirs == COUNTERS
