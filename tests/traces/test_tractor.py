import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.traces import tractor

SEPARATED = (
    "Timestamp,num_ues,IMSI,RNTI,,slicing_enabled,slice_id,slice_prb,power_multiplier,scheduling_policy,,dl_mcs,"
    "dl_n_samples,dl_buffer [bytes],tx_brate downlink [Mbps],tx_pkts downlink,tx_errors downlink (%),dl_cqi,,ul_mcs,"
    "ul_n_samples,ul_buffer [bytes],rx_brate uplink [Mbps],rx_pkts uplink,rx_errors uplink (%),ul_rssi,ul_sinr,phr,,"
    "sum_requested_prbs,sum_granted_prbs,,dl_pmi,dl_ri,ul_n,ul_turbo_iters"
)
PLAIN = (
    "IMSI,Timestamp,slice_prb,dl_cqi,dl_mcs,dl_n_samples,tx_brate downlink,rx_brate uplink,ul_n_samples,ul_sinr,"
    "sum_granted_prbs"
)
MEMBER = "Trial1/Multi10/1010123456002_metrics.csv"


def row(time_ms=1677083019664, slice_prb=14, mcs=18.5, n=33, mbps=0.5, ul_n=42, sinr=35.5, granted=1750) -> str:
    downlink = f"{mcs},{n},0,{mbps},9,0,9"
    uplink = f"11.4,{ul_n},0,0.25,12,0,0,{sinr},31"
    return f"{time_ms},1,1010123456002,70,,1,2,{slice_prb},1,1,,{downlink},,{uplink},,11875,{granted},,0,0,0,1"


@pytest.fixture
def one_trace(write_zip):
    def read(*rows: str, header=SEPARATED):
        (trace,) = tractor.read(write_zip(tractor.ARCHIVE, {MEMBER: "\n".join((header, *rows)) + "\n"}))
        return trace

    return read


def decoded(trace) -> dict[str, list[dict]]:
    streams: dict[str, list[dict]] = {"traffic": [], "channel-state": []}
    for message in tractor.messages(trace):
        streams[message.stream].append(msgspec.json.decode(message.value))
    return streams


def test_a_row_becomes_traffic_of_the_ue_and_channel_state_at_the_base_station(one_trace):
    streams = decoded(one_trace(row()))

    assert streams["traffic"] == [
        {
            "schema": "netpredict.traffic/1",
            "radio_cell_id": "tractor-trial1-multi10-ue002",
            "event_time_us": 1677083019664000,
            "dl_throughput_kbps": 500.0,
            "ul_throughput_kbps": 250.0,
            "prb_use_dl_percent": 50.0,
        }
    ]
    assert streams["channel-state"] == [
        {
            "schema": "netpredict.channel-state/1",
            "radio_cell_id": "tractor-trial1-multi10",
            "event_time_us": 1677083019664000,
            "ue_id": "tractor-trial1-multi10-ue002",
            "cqi": 9.0,
            "sinr_db": 35.5,
            "mcs": 18.5,
        }
    ]


def test_the_layout_without_separators_and_units_reads_alike(one_trace):
    plain = one_trace("1010123456002,1677083019664,14,9,18.5,33,0.5,0.25,42,35.5,1750", header="\ufeff" + PLAIN)

    assert decoded(plain) == decoded(one_trace(row()))


def test_a_layout_without_a_needed_column_is_a_data_error(one_trace):
    with pytest.raises(DataError, match="no column dl_mcs"):
        one_trace(header=PLAIN.replace("dl_mcs,", ""))


def test_idle_zeros_are_no_link_measurements_but_true_zeros_of_traffic(one_trace):
    trace = one_trace(row(mcs=0, n=0, mbps=0, ul_n=0, sinr=0, granted=0))

    streams = decoded(trace)

    assert streams["traffic"][0]["dl_throughput_kbps"] == streams["traffic"][0]["prb_use_dl_percent"] == 0.0
    assert "mcs" not in streams["channel-state"][0]
    assert "sinr_db" not in streams["channel-state"][0]
    assert trace.repairs == {"idle_zero:dl_mcs": 1, "idle_zero:ul_sinr": 1}


def test_mcs_0_with_samples_is_a_value(one_trace):
    assert decoded(one_trace(row(mcs=0)))["channel-state"][0]["mcs"] == 0.0


def test_without_slicing_there_is_no_prb_use(one_trace):
    assert "prb_use_dl_percent" not in decoded(one_trace(row(slice_prb=0)))["traffic"][0]


def test_prb_use_over_100_is_noted_and_not_clamped(one_trace):
    trace = one_trace(row(granted=3514))

    assert trace.frame["prb_use_dl_percent"].tolist() == [pytest.approx(100.4)]
    assert trace.noted == {"prb_use_over_100_percent": 1}


def test_time_jumps_stay_and_are_noted(one_trace):
    trace = one_trace(row(), row(time_ms=1677083019914), row(time_ms=1690928028778))

    assert len(trace.frame) == 3
    assert trace.noted == {"time_jump": 1}


def test_an_absent_archive_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=tractor.ARCHIVE):
        list(tractor.read(tmp_path))


def test_the_published_files_read_whole(data_root):
    published = list(tractor.read(data_root / "tractor"))

    assert len(published) == 98
    assert sum(len(trace.frame) for trace in published) == 305_213
    assert sum(trace.noted.get("time_jump", 0) for trace in published) == 262
    assert sum(trace.noted.get("prb_use_over_100_percent", 0) for trace in published) == 616
    assert max(trace.frame["prb_use_dl_percent"].max() for trace in published) == pytest.approx(102.0)
    assert {trace.duplicate_stamps() for trace in published} == {0}


def test_limit_traces_reads_no_more(data_root):
    assert len(list(tractor.read(data_root / "tractor", limit_traces=2))) == 2
