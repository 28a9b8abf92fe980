from collections import Counter

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.ingest.messages import SCHEMAS, ChannelState, Rsrp, Traffic
from netpredict.radio.quantities import KPIS
from netpredict.traces.message import TraceMessage
from netpredict.traces.simulator import History, Simulator, SimulatorConfig
from netpredict.traces.wire import STREAM_KPIS

SMALL = SimulatorConfig(seed=7, radio_cells=12, ues=9)
DAY_S = 86_400


def decoded(messages: list[TraceMessage]) -> list[Traffic | Rsrp | ChannelState]:
    schemas = {schema.split(".")[1].split("/")[0]: struct for schema, struct in SCHEMAS.items()}
    return [msgspec.json.decode(message.value, type=schemas[message.stream]) for message in messages]


@pytest.fixture(scope="module")
def quarter_hour() -> dict[str, History]:
    return Simulator(SimulatorConfig(radio_cells=150, ues=200)).history(900)


@pytest.fixture(scope="module")
def fortnight() -> History:
    return Simulator(SimulatorConfig(radio_cells=200, ues=0, traffic_period_s=900)).history(14 * DAY_S)["traffic"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again = (list(Simulator(SMALL).messages(180)) for _ in range(2))
    other = list(Simulator(SimulatorConfig(seed=8, radio_cells=12, ues=9)).messages(180))

    assert first == again
    assert [m.value for m in first] != [m.value for m in other]


def test_a_run_in_two_parts_equals_one_run():
    simulator = Simulator(SMALL)

    parts = [*simulator.messages(70), *simulator.messages(110)]

    assert parts == list(Simulator(SMALL).messages(180))


def test_more_ues_leave_the_traffic_as_it_was():
    few, many = (
        [m for m in Simulator(SimulatorConfig(radio_cells=12, ues=ues)).messages(180) if m.stream == "traffic"]
        for ues in (1, 30)
    )

    assert few == many


def test_messages_come_by_event_time_at_the_periods_of_their_streams():
    config = SimulatorConfig(
        radio_cells=12,
        ues=9,
        traffic_period_s=60,
        rsrp_period_s=5,
        channel_state_period_s=2,
        start_us=1_767_571_200_000_000,
    )

    messages = list(Simulator(config).messages(120))

    assert Counter(m.stream for m in messages) == {"traffic": 12 * 2, "rsrp": 9 * 24, "channel-state": 9 * 60}
    times_us = [m.event_time_us for m in messages]
    assert times_us == sorted(times_us)
    assert times_us[0] == config.start_us
    for stream in STREAM_KPIS:
        period_us = config.period_s(stream) * 1_000_000
        assert {(m.event_time_us - config.start_us) % period_us for m in messages if m.stream == stream} == {0}


def test_ue_streams_are_keyed_by_the_ue_and_traffic_by_the_radio_cell():
    messages = list(Simulator(SMALL).messages(1))

    for message, row in zip(messages, decoded(messages), strict=True):
        assert message.key.decode() == (row.radio_cell_id if isinstance(row, Traffic) else row.ue_id)


def test_history_holds_the_values_of_the_messages():
    messages = list(Simulator(SMALL).messages(120))
    history = Simulator(SMALL).history(120)

    on_the_wire: dict[tuple, dict[str, float | None]] = {}
    for message, row in zip(messages, decoded(messages), strict=True):
        slot = row.event_time_us // (SMALL.period_s(message.stream) * 1_000_000)
        kpis = {kpi: getattr(row, kpi) for kpi in STREAM_KPIS[message.stream]}
        match row:
            case Traffic():
                on_the_wire[(message.stream, (row.radio_cell_id,), slot)] = kpis
            case ChannelState():
                on_the_wire[(message.stream, (row.ue_id,), slot)] = kpis
            case Rsrp():
                on_the_wire[(message.stream, (row.ue_id, row.radio_cell_id), slot)] = kpis
                for n in row.neighbours:
                    heard = {"rsrp_dbm": n.rsrp_dbm, "rsrq_db": n.rsrq_db, "sinr_db": n.sinr_db}
                    on_the_wire[(message.stream, (row.ue_id, n.radio_cell_id), slot)] = heard

    cells = 0
    for stream, (keys, slots, values, kpis) in history.items():
        assert values.dtype == np.float32
        assert values.shape == (len(keys), len(slots), len(kpis))
        for s, key in enumerate(keys):
            for t, slot in enumerate(slots.tolist()):
                row = on_the_wire.pop((stream, key, slot), dict.fromkeys(kpis))
                expected = [np.float32(np.nan if row[kpi] is None else row[kpi]) for kpi in kpis]
                np.testing.assert_array_equal(values[s, t], expected)
                cells += 1
    assert on_the_wire == {}
    assert cells > 120 * 9 * 5


def test_slots_are_event_time_over_period_as_the_daemon_counts_them():
    history = Simulator(SimulatorConfig(radio_cells=3, ues=1)).history(120)

    assert history["traffic"].slots.tolist() == [1_767_571_200 // 60, 1_767_571_200 // 60 + 1]
    assert history["rsrp"].slots[:2].tolist() == [1_767_571_200, 1_767_571_201]


def test_slots_come_in_order():
    simulator = Simulator(SMALL)

    simulator.step(0)

    with pytest.raises(ValueError, match="next slot is 1"):
        simulator.step(5)


@pytest.mark.parametrize("changes", [{"radio_cells": 0}, {"ues": -1}, {"rsrp_period_s": 0}])
def test_a_configuration_that_cannot_run_is_refused(changes: dict[str, int]):
    with pytest.raises(ConfigError):
        SimulatorConfig(**changes)


@pytest.mark.parametrize("radio_cells", [1, 2, 4])
def test_a_network_smaller_than_a_report_names_only_radio_cells_that_exist(radio_cells: int):
    simulator = Simulator(SimulatorConfig(radio_cells=radio_cells, ues=5))

    reports = [row for row in decoded(list(simulator.messages(30))) if isinstance(row, Rsrp)]

    named = {r.radio_cell_id for r in reports} | {n.radio_cell_id for r in reports for n in r.neighbours}
    assert named <= set(simulator.radio_cell_ids)
    assert max(len(r.neighbours) for r in reports) == radio_cells - 1


def test_every_value_lies_in_the_range_of_its_kpi(quarter_hour, fortnight):
    for keys, _, values, kpis in (*quarter_hour.values(), fortnight):
        assert len(set(keys)) == len(keys)
        for column, kpi in enumerate(kpis):
            low, high = np.nanmin(values[..., column]), np.nanmax(values[..., column])
            assert KPIS[kpi].low <= low <= high <= KPIS[kpi].high, kpi


def test_the_radio_looks_like_a_macro_network(quarter_hour):
    serving = quarter_hour["rsrp"].values[~np.isnan(quarter_hour["rsrp"].values[..., 2])]
    rsrp_dbm, rsrq_db, sinr_db = np.median(serving, axis=0)

    assert -105 < rsrp_dbm < -80
    assert -20 < rsrq_db < -5
    assert 3 < sinr_db < 15


def test_channel_state_hangs_together(quarter_hour):
    cqi, sinr_db, rank, bler_ratio, mcs = np.moveaxis(quarter_hour["channel-state"].values, 2, 0)

    assert np.corrcoef(cqi.ravel(), sinr_db.ravel())[0, 1] > 0.9
    assert len(np.unique(cqi)) >= 15
    assert set(np.unique(rank)) == {1, 2, 3, 4}
    assert 0.05 < bler_ratio.mean() < 0.25
    assert np.nanmax(mcs) == 28
    # The MCS follows the CQI of the report before, and there is none while that CQI was 0.
    np.testing.assert_array_equal(np.isnan(mcs[:, 1:]), cqi[:, :-1] == 0)


def test_ues_are_handed_over_and_keep_being_heard_under_their_identity(quarter_hour):
    simulator = Simulator(SimulatorConfig(radio_cells=150, ues=200))
    serving = np.array([snapshot.serving for snapshot in simulator.snapshots(300)])

    changes = int((np.diff(serving, axis=0) != 0).sum())

    assert 0.2 < changes / 200 / 5 < 4  # per UE and minute
    assert simulator.fleet.handovers >= changes * 0.95
    known = ~np.isnan(quarter_hour["rsrp"].values[..., 0])
    both = known.any(axis=1) & ~np.isnan(quarter_hour["rsrp"].values[..., 2]).all(axis=1)
    assert both.sum() > 200


def test_shadowing_decays_with_the_way_as_gudmundson_says():
    simulator = Simulator(SimulatorConfig(radio_cells=3, ues=4000))
    fleet = simulator.fleet
    fleet.speed_ms[:] = 25.0
    near = np.zeros((4000, 1), dtype=np.intp)

    before = fleet._shadow_db(near)
    fleet.move(1.0)
    fleet.move(1.0)
    after = fleet._shadow_db(near)

    assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] == pytest.approx(np.exp(-50 / 50), abs=0.04)
    assert before.std() == pytest.approx(6.0, abs=0.3)


def test_throughput_has_a_daily_and_a_weekly_cycle(fortnight):
    by_day = fortnight.values[..., 0].reshape(200, 14, 24, 4).mean(axis=(0, 3))
    workdays = by_day[[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]].mean(axis=0)

    assert workdays.argmin() in (2, 3, 4, 5)
    assert workdays.max() / workdays.min() > 2.5
    assert by_day[[5, 6, 12, 13]].mean() < 0.95 * workdays.mean()
    np.testing.assert_allclose(by_day[:7].mean(), by_day[7:].mean(), rtol=0.05)


def test_yesterday_tells_more_about_a_radio_cell_than_the_average(fortnight):
    dl_kbps = fortnight.values[..., 0]
    day = DAY_S // 900

    error = np.abs(dl_kbps[:, day:] - dl_kbps[:, :-day]).mean()

    assert error < np.abs(dl_kbps - dl_kbps.mean(axis=1, keepdims=True)).mean()


def test_prb_use_follows_throughput_and_some_radio_cells_saturate(fortnight):
    dl_kbps, _, dl_percent, _, ues = np.moveaxis(fortnight.values, 2, 0)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(dl_kbps, dl_percent, strict=True)]

    assert np.median(correlation) > 0.9
    saturated = (dl_percent >= 99.9).mean()
    assert 0.005 < saturated < 0.15
    assert np.corrcoef(dl_kbps.ravel(), ues.ravel())[0, 1] > 0.7
    np.testing.assert_array_equal(ues, np.round(ues))


def test_radio_cells_differ_in_scale_and_hour(fortnight):
    by_hour = fortnight.values[..., 0].reshape(200, 14, 24, 4).mean(axis=(1, 3))

    assert np.percentile(by_hour.mean(axis=1), 90) > 2 * np.percentile(by_hour.mean(axis=1), 10)
    assert len(set(by_hour.argmax(axis=1))) >= 5


def test_a_hundred_thousand_messages_come_of_less_than_three_minutes():
    assert sum(1 for _ in Simulator(SimulatorConfig()).messages(165)) > 100_000
