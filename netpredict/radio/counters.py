"""Names of performance counters (TS 28.552, O-RAN E2SM-KPM 7.10) and ratios of them.

The spelling is the standard's, ``TB.IntialErrNbrDl`` included. A name alone does not tell the unit: PDCP volumes are
kbit in E2SM-KPM and Mbit in TS 28.552, so a source mapping must declare it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple


class PmCounter(NamedTuple):
    """One counter: clause of TS 28.552 (7.10.x: of E2SM-KPM), measured objects, method and unit in E2SM-KPM.

    Method: CC cumulative, SI status inspection (sampled), DER discrete event registration. Unit "1" is a count,
    "0.1ms" tenths of a millisecond.
    """

    name: str
    clause: str
    object: str
    method: str
    kpm_unit: str


_ROWS = """
RRU.PrbTotDl 5.1.1.2.1 NRCellDU SI %
RRU.PrbTotUl 5.1.1.2.2 NRCellDU SI %
RRU.PrbUsedDl 5.1.1.2.5 NRCellDU SI 1
RRU.PrbUsedUl 5.1.1.2.7 NRCellDU SI 1
RRU.PrbAvailDl 5.1.1.2.6 NRCellDU SI 1
RRU.PrbAvailUl 5.1.1.2.8 NRCellDU SI 1
RRU.MaxPrbUsedDl 5.1.1.2.9 NRCellDU SI 1
RRU.MaxPrbUsedUl 5.1.1.2.10 NRCellDU SI 1
DRB.UEThpDl 5.1.1.3.1 NRCellDU DER kbps
DRB.UEThpUl 5.1.1.3.3 NRCellDU DER kbps
DRB.UEUnresVolDl 5.1.1.3.5 NRCellDU SI %
DRB.UEUnresVolUl 5.1.1.3.6 NRCellDU SI %
DRB.PdcpSduVolumeDL 5.1.2.1.1.1 NRCellCU CC kbit
DRB.PdcpSduVolumeUL 5.1.2.1.2.1 NRCellCU CC kbit
QosFlow.PdcpPduVolumeDL 5.1.3.6.1.1 NRCellCU+GNBCUUP CC kbit
QosFlow.PdcpPduVolumeUL 5.1.3.6.1.2 NRCellCU+GNBCUUP CC kbit
DRB.RlcSduTransmittedVolumeDL 7.10.1 NRCellDU CC kbit
DRB.RlcSduTransmittedVolumeUL 7.10.2 NRCellDU CC kbit
RRC.ConnMean 5.1.1.4.1 NRCellCU SI 1
RRC.ConnMax 5.1.1.4.2 NRCellCU SI 1
DRB.MeanActiveUeDl 5.1.1.23.1 NRCellDU DER 1
DRB.MeanActiveUeUl 5.1.1.23.3 NRCellDU DER 1
DRB.MaxActiveUeDl 5.1.1.23.2 NRCellDU DER 1
DRB.AirIfDelayDl 5.1.1.1.1 NRCellDU DER 0.1ms
DRB.AirIfDelayUl 5.1.1.1.3 NRCellDU DER 0.1ms
DRB.RlcDelayUl 5.1.1.1.4 NRCellDU DER 0.1ms
DRB.RlcSduDelayDl 5.1.3.3.3 NRCellDU DER 0.1ms
DRB.PdcpSduDelayDl 5.1.3.3.1 GNBCUUP DER 0.1ms
DRB.PacketLossRateUl 5.1.3.1.1 NRCellCU+GNBCUUP SI 1
DRB.PdcpPacketDropRateDl 5.1.3.2.1 NRCellCU+GNBCUUP SI 1
DRB.RlcPacketDropRateDl 5.1.3.2.2 NRCellDU SI 1
MM.HoPrepInterReq 5.1.1.6.1.1 NRCellCU+Rel CC 1
MM.HoPrepInterSucc 5.1.1.6.1.2 NRCellCU+Rel CC 1
MM.HoExeInterReq 5.1.1.6.1.7 NRCellCU+Rel CC 1
MM.HoExeInterSucc 5.1.1.6.1.8 NRCellCU+Rel CC 1
MM.HoExeInterFail 5.1.1.6.1.9 NRCellCU+Rel CC 1
MM.HoExeInterReq.TimeMean 5.1.1.6.1.10 NRCellCU DER ms
MM.HoExeInterReq.TimeMax 5.1.1.6.1.11 NRCellCU DER ms
MM.HoPrepIntraReq 5.1.3.7.1.1 NRCellCU CC 1
MM.HoPrepIntraSucc 5.1.3.7.1.2 NRCellCU CC 1
MM.HoExeIntraReq 5.1.1.6.2.1 NRCellCU+Rel CC 1
MM.HoExeIntraSucc 5.1.1.6.2.2 NRCellCU+Rel CC 1
HO.IntraSys.TooEarly 5.1.1.25.1 NRCellCU+Rel CC 1
HO.IntraSys.TooLate 5.1.1.25.1 NRCellCU+Rel CC 1
HO.IntraSys.ToWrongCell 5.1.1.25.1 NRCellCU+Rel CC 1
HO.InterSys.PingPong 5.1.1.25.4 NRCellCU+EutranRel CC 1
RRC.ReEstabAtt 5.1.1.17.1 NRCellCU CC 1
TB.TotNbrDlInitial 5.1.1.7.1 NRCellDU CC 1
TB.IntialErrNbrDl 5.1.1.7.2 NRCellDU CC 1
TB.TotNbrDl 5.1.1.7.3 NRCellDU CC 1
TB.ErrTotNbrDl 5.1.1.7.4 NRCellDU CC 1
TB.ResidualErrNbrDl 5.1.1.7.5 NRCellDU CC 1
TB.TotNbrUlInit 5.1.1.7.6 NRCellDU CC 1
TB.ErrNbrUlInitial 5.1.1.7.7 NRCellDU CC 1
TB.TotNbrUl 5.1.1.7.8 NRCellDU CC 1
TB.ErrTotNbrUl 5.1.1.7.9 NRCellDU CC 1
TB.ResidualErrNbrUl 5.1.1.7.10 NRCellDU CC 1
CARR.WBCQIDist 5.1.1.11.1 NRCellDU CC 1
CARR.PDSCHMCSDist 5.1.1.12.1 NRCellDU CC 1
CARR.PUSCHMCSDist 5.1.1.12.2 NRCellDU CC 1
CARR.AverageLayersDl 5.1.1.30.5 NRCellDU SI 1
L1M.SS-RSRP 5.1.1.22.1 BEAM CC 1
L1M.SS-RSRPNrNbr 5.1.1.22.2 NRCellCU+Rel CC 1
MR.NRScSSRSRQ 5.1.1.31.1 NRCellCU CC 1
MR.SS-RSRQ 5.1.1.31.3 NRCellCU+Rel CC 1
MR.NRScSSSINR 5.1.1.32.1 NRCellCU CC 1
MR.SS-SINR 5.1.1.32.3 NRCellCU+Rel CC 1
L1M.DL-SS-RSRP 7.10.7 NRCellDU DER index
L1M.DL-SS-SINR 7.10.8 NRCellDU DER index
PEE.AvgPower 5.1.1.19.2.1 E2_Node SI W
PEE.Energy 5.1.1.19.3 E2_Node SI kWh
CARR.MaxTxPwr 5.1.1.29.1 NRCellDU SI dBm
"""

COUNTERS: dict[str, PmCounter] = {row.split()[0]: PmCounter(*row.split()) for row in _ROWS.strip().splitlines()}


def known_counter(name: str) -> PmCounter | None:
    """The counter that a reported name stands for, None when unknown; case matters.

    Names carry suffixes (``.sum``, ``.64Qam``, ``.<5QI>``, ``_Filter``): the longest known name that ends at a
    separator wins.
    """
    ends = [end for end in range(len(name), 0, -1) if end == len(name) or name[end] in "._"]
    return next((COUNTERS[name[:end]] for end in ends if name[:end] in COUNTERS), None)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """``numerator / denominator``; None, "no value", when one is absent or not finite or the denominator is 0."""
    if numerator is None or denominator is None or not (isfinite(numerator) and isfinite(denominator)):
        return None
    return None if denominator == 0 else numerator / denominator


@dataclass(frozen=True)
class CounterRatio:
    """A share 0..1: one counter over the sum of others, all of the same object and period."""

    numerator: str
    denominators: tuple[str, ...]

    def of(self, counts: Mapping[str, float]) -> float | None:
        """The share, or None when a counter is absent or the sum of the denominators is 0, never 0 or 100 %."""
        if any(name not in counts for name in self.denominators):
            return None
        return ratio(counts.get(self.numerator), sum(counts[name] for name in self.denominators))
