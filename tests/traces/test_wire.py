import msgspec
import numpy as np
import pandas as pd
import pytest

from netpredict.ingest.messages import SCHEMAS
from netpredict.traces.message import SCHEMA_OF
from netpredict.traces.wire import ROWS_AT_ONCE, STREAM_KPIS, channel_state_messages, rsrp_messages, traffic_messages


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"event_time_us": np.arange(2, dtype=np.int64), "radio_cell_id": "c", "ue_id": "u"} | columns)


def values(messages) -> list[dict]:
    return [msgspec.json.decode(message.value) for message in messages]


@pytest.mark.parametrize("stream", STREAM_KPIS)
def test_every_kpi_is_a_field_of_its_schema_and_the_other_way_round(stream: str):
    fields = set(SCHEMAS[SCHEMA_OF[stream]].__struct_fields__)

    others = {"schema", "radio_cell_id", "event_time_us", "ue_id", "neighbours", "suspect"}
    assert set(STREAM_KPIS[stream]) == fields - others


def test_a_row_without_a_measured_value_gives_no_message():
    rows = values(traffic_messages(frame(dl_throughput_kbps=[np.nan, 0.0])))

    assert [row["event_time_us"] for row in rows] == [1]
    assert rows[0]["dl_throughput_kbps"] == 0.0


def test_a_frame_without_a_kpi_of_the_stream_gives_none():
    assert list(channel_state_messages(frame(dl_throughput_kbps=[1.0, 2.0]))) == []


def test_traffic_can_take_its_radio_cell_from_another_column():
    assert [m.key for m in traffic_messages(frame(connected_ues=[1.0, 2.0]), "ue_id")] == [b"u", b"u"]


def test_channel_state_fields_stand_where_the_schema_has_them():
    rows = values(channel_state_messages(frame(cqi=[0.0, 9.0], mcs=[np.nan, 14.0], sinr_db=[1.5, np.nan])))

    assert [row.get("cqi") for row in rows] == [0.0, 9.0]
    assert [row.get("mcs") for row in rows] == [None, 14.0]
    assert [row.get("sinr_db") for row in rows] == [1.5, None]


def test_neighbours_are_approximate_and_only_those_that_were_heard():
    rows = values(
        rsrp_messages(
            frame(
                rsrp_dbm=[-90.0, np.nan],
                nbr1_radio_cell_id=["c-nbr1"] * 2,
                nbr1_rsrp_dbm=[np.nan, -95.0],
                nbr1_rsrq_db=[np.nan, -12.0],
            )
        )
    )

    assert "neighbours" not in rows[0]
    assert rows[1]["neighbours"] == [
        {"radio_cell_id": "c-nbr1", "rsrp_dbm": -95.0, "rsrq_db": -12.0, "approximate": True}
    ]
    assert "rsrp_dbm" not in rows[1]


def test_neighbours_that_a_trace_names_are_not_approximate_and_may_have_a_sinr():
    told = frame(
        nbr1_radio_cell_id=["n", None], nbr1_rsrp_dbm=[-95.0, np.nan], nbr1_sinr_db=[-3.5, np.nan], rsrp_dbm=[-90.0] * 2
    )
    rows = values(rsrp_messages(told, approximate=False))

    assert rows[0]["neighbours"] == [{"radio_cell_id": "n", "rsrp_dbm": -95.0, "sinr_db": -3.5}]
    assert "neighbours" not in rows[1]


def test_a_long_trace_loses_no_row():
    rows = 2 * ROWS_AT_ONCE + 1
    told = pd.DataFrame({"event_time_us": np.arange(rows), "radio_cell_id": "c", "ue_id": "u", "rsrp_dbm": -90.0})

    assert [message.event_time_us for message in rsrp_messages(told)] == list(range(rows))
