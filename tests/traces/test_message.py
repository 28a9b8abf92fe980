import msgspec

from netpredict.ingest.messages import ChannelState, Rsrp, Traffic
from netpredict.traces.message import TraceMessage, merge, traffic_message, ue_message


def message(event_time_us: int, key: str) -> TraceMessage:
    return TraceMessage("traffic", event_time_us, key.encode(), b"{}")


def keys(messages) -> str:
    return "".join(m.key.decode() for m in messages)


def test_traffic_is_keyed_by_its_radio_cell_and_leaves_out_what_was_not_measured():
    encoded = traffic_message(Traffic("netpredict.traffic/1", "c1", 5, dl_throughput_kbps=1.5))

    assert (encoded.stream, encoded.event_time_us, encoded.key) == ("traffic", 5, b"c1")
    assert msgspec.json.decode(encoded.value) == {
        "schema": "netpredict.traffic/1",
        "radio_cell_id": "c1",
        "event_time_us": 5,
        "dl_throughput_kbps": 1.5,
    }


def test_ue_streams_are_keyed_by_the_ue_and_without_one_by_the_radio_cell():
    assert ue_message("rsrp", Rsrp("netpredict.rsrp/1", "c1", 5, "u1", -90.0)).key == b"u1"
    assert ue_message("channel-state", ChannelState("netpredict.channel-state/1", "c1", 5)).key == b"c1"


def test_merge_goes_by_event_time_across_traces():
    merged = merge([[message(1, "a"), message(4, "b")], [message(2, "c"), message(3, "d")]])

    assert keys(merged) == "acdb"


def test_merge_keeps_equal_times_in_the_order_of_the_traces():
    merged = merge([[message(1, "a"), message(1, "b")], [message(1, "c"), message(2, "d")]])

    assert keys(merged) == "abcd"


def test_merge_leaves_a_stamp_that_goes_back_where_it_was_published():
    merged = merge([[message(5, "a"), message(4, "b"), message(6, "c")], [message(4, "d"), message(6, "e")]])

    assert keys(merged) == "dabce"


def test_merge_of_nothing_is_empty():
    assert list(merge([])) == []
