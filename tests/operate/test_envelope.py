"""What goes out is what is stored: values, names, ids, and the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest

from netpredict.config import RouteConfig, StreamConfig
from netpredict.ingest.messages import Action, Forecast
from netpredict.operate import envelope
from netpredict.operate.envelope import Envelope
from netpredict.operate.sink import Message
from netpredict.store.commit import ForecastLayout, ForecastRows
from netpredict.types import MISSING_TICKS, Mode, Quality, TopicPartition
from tests.store.store_builders import firing

PLACE = TopicPartition("ran.rsrp", 3)
LAYOUT = ForecastLayout("rsrp", ("rsrp_dbm", "users"), (2, 0), (0.1, 0.5, 0.9), 4, 10_000_000)
WIDTH = 2 * 4 * 3
SLOT_US = 1_750_000_020_000_001
SCHEMAS = Path(__file__).parents[2] / "deploy" / "schemas"


class Names:
    """A directory that counts how often it is asked."""

    def __init__(self, keys: dict[int, str]) -> None:
        self.keys = keys
        self.asked: list[list[int]] = []

    def series_keys(self, series_ids: Sequence[int]) -> dict[int, str]:
        self.asked.append(list(series_ids))
        return {series_id: self.keys[series_id] for series_id in series_ids}

    def model(self, model_id: int) -> tuple[str, str]:
        return {1: ("gru", "v1"), 2: ("lstm", "v7")}[model_id]


def stream(*routes: RouteConfig, series_by: Sequence[str] = ("ue_id", "radio_cell_id")) -> StreamConfig:
    return StreamConfig(
        topic="ran.rsrp",
        schema="rsrp",
        series_by=list(series_by),
        period_s=10.0,
        kpis=["rsrp_dbm"],
        routes=list(routes or [RouteConfig(active="gru", shadows=["lstm"])]),
    )


def rows_of(count: int = 2, model_id: int = 1, span: int = 5000) -> ForecastRows:
    rng = np.random.default_rng(3)
    return ForecastRows(
        model_id,
        LAYOUT,
        np.full(count, SLOT_US, np.int64) + np.arange(count) % 2 * 10_000_000,
        np.arange(count, dtype=np.int64),
        rng.integers(0, 4, (count, 2)).astype(np.uint8),
        np.zeros(count, np.uint8),
        rng.integers(-span, span, (count, WIDTH)).astype(np.int32),
        np.zeros((count, 2), np.int32),
    )


def two() -> Names:
    return Names({0: "ue-1|cell-a", 1: 'ue-"é"|cell-b'})


def made(names: Names, rows: ForecastRows, config: StreamConfig | None = None, **settings: bool) -> list[Message]:
    maker = Envelope("lab 1", {"rsrp": config or stream()}, names, **settings)
    return [message for messages in maker.forecasts(PLACE, rows) for message in messages]


def decoded(messages: Sequence[Message]) -> list[Forecast]:
    return [msgspec.json.decode(message.value, type=Forecast, strict=True) for message in messages]


@pytest.mark.parametrize("span", [50, 5000, 2_000_000_000])
def test_a_message_says_what_its_row_holds(span: int) -> None:
    rows = rows_of(span=span)
    rows.ticks[1, 5] = MISSING_TICKS
    rows.quality[1] = Quality.WARMING | Quality.SUSPECT
    first, second = decoded(made(two(), rows))
    assert (first.stream, first.series, first.predictor, first.version) == ("rsrp", "ue-1|cell-a", "gru", "v1")
    assert first.key == {"ue_id": "ue-1", "radio_cell_id": "cell-a"}
    assert second.key == {"ue_id": 'ue-"é"', "radio_cell_id": "cell-b"}
    assert (first.issued_at_us, second.issued_at_us) == (SLOT_US, SLOT_US + 10_000_000)
    assert (first.period_us, first.horizon_steps, first.levels) == (10_000_000, 4, [0.1, 0.5, 0.9])
    assert (first.quality, second.quality) == ([], ["warming", "suspect"])
    for row, message in enumerate((first, second)):
        for kpi, name in enumerate(LAYOUT.kpis):
            ticks = rows.ticks[row].reshape(2, 4, 3)[kpi].tolist()
            natural = [
                [None if value == MISSING_TICKS else value / 10 ** LAYOUT.decimals[kpi] for value in lead]
                for lead in ticks
            ]
            assert message.kpis[name].values == natural
            assert message.kpis[name].source == ("model", "seasonal", "naive", "none")[rows.sources[row, kpi]]
    assert second.kpis["rsrp_dbm"].values[1][2] is None


def test_headers_are_those_of_a_cloud_event_in_binary_mode() -> None:
    first, second = made(two(), rows_of())
    headers = dict(first.headers)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"netpredict.forecast.v1",
        "ce_source": b"/netpredict/lab%201/rsrp",
        "ce_id": decoded([first])[0].id.encode(),
        "ce_time": b"2025-06-15T15:07:00.000001Z",
        "content-type": b"application/json",
    }
    assert (first.key, second.key) == (b"ue-1", 'ue-"é"'.encode())


def test_an_id_depends_on_all_that_names_a_forecast_and_on_nothing_else() -> None:
    rows = rows_of()
    once = [message.id for message in decoded(made(two(), rows))]
    assert made(two(), rows) == made(Names({0: "ue-1|cell-a", 1: 'ue-"é"|cell-b', 2: "x|y"}), rows)
    others = made(two(), rows_of(model_id=2), shadows=True)
    others += next(iter(Envelope("g", {}, two()).forecasts(TopicPartition("ran.rsrp", 4), rows)))
    others += made(Names({0: "ue-1|cell-b", 1: "ue-2|cell-b"}), rows)
    rows.slot_time_us += 10_000_000
    others += made(two(), rows)
    assert len({*once, *(message.id for message in decoded(others))}) == 10


def test_a_challengers_rows_are_left_out_unless_wanted_and_say_what_they_are() -> None:
    """It is a version of the active predictor itself: only the row tells that nobody is served with it."""
    rows = rows_of()
    rows.quality[1] = Quality.CHALLENGER
    assert [forecast.series for forecast in decoded(made(two(), rows))] == ["ue-1|cell-a"]
    assert [forecast.quality for forecast in decoded(made(two(), rows, shadows=True))] == [[], ["challenger"]]


def test_shadows_are_left_out_unless_wanted_and_routes_decide_by_key() -> None:
    assert made(two(), rows_of(model_id=2)) == []
    assert len(made(two(), rows_of(model_id=2), shadows=True)) == 2
    routes = (RouteConfig(match="*cell-b", active="lstm"), RouteConfig(active="gru"))
    assert [m.series for m in decoded(made(two(), rows_of(), stream(*routes)))] == ["ue-1|cell-a"]
    assert [m.predictor for m in decoded(made(two(), rows_of(model_id=2), stream(*routes)))] == ["lstm"]


def test_rows_left_behind_by_an_older_config_are_still_published() -> None:
    messages = decoded(made(two(), rows_of(), stream(series_by=["radio_cell_id"])))
    assert messages[0].key == {"field_0": "ue-1", "field_1": "cell-a"}
    without = Envelope("g", {}, two())
    assert len(next(iter(without.forecasts(PLACE, rows_of())))) == 2


def test_a_series_is_looked_up_once_and_the_texts_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "ROWS_PER_CHUNK", 10)
    names = Names({number: f"ue-{number}|cell" for number in range(25)})
    maker = Envelope("g", {"rsrp": stream()}, names)
    once = [list(maker.forecasts(PLACE, rows_of(25))) for _ in range(2)]
    assert [len(messages) for messages in once[0]] == [10, 10, 5]
    assert once[0] == once[1]
    assert [len(ids) for ids in names.asked] == [10, 10, 5]
    monkeypatch.setattr(envelope, "HEADS_MAX", 12)
    small = Envelope("g", {"rsrp": stream()}, names)
    assert [list(small.forecasts(PLACE, rows_of(25))) for _ in range(2)] == once
    assert sum(map(len, small._heads.values())) <= 12


def test_messages_fit_the_schemas_that_are_shipped() -> None:
    rows = rows_of(1)
    rows.ticks[0, 0] = MISSING_TICKS
    maker = Envelope("g", {"rsrp": stream()}, two())
    (forecast,) = next(maker.forecasts(PLACE, rows))
    for name, message in (("forecast", forecast), ("action", maker.action(firing()))):
        schema = msgspec.json.decode((SCHEMAS / f"netpredict.{name}-1.json").read_bytes())
        jsonschema.Draft202012Validator(schema).validate(msgspec.json.decode(message.value))


def test_an_action_says_what_was_decided_and_why() -> None:
    message = Envelope("g", {}, two()).action(firing(1, mode=Mode.SHADOW, object_id="ue-1|cell-a"))
    action = msgspec.json.decode(message.value, type=Action, strict=True)
    assert (action.id, action.mode, action.value, action.why) == (
        "firing-1",
        "shadow",
        {"quota": 11},
        {"peak_mbps": 1.25},
    )
    assert action.issued_at_us < action.expires_at_us < action.effect_until_us
    assert message.key == b"ue-1"
    headers = dict(message.headers)
    assert headers["ce_id"] == b"firing-1"
    assert headers["ce_type"] == b"netpredict.action.v1"
    assert headers["ce_time"].endswith(b"Z")
