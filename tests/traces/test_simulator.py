from collections import Counter
from dataclasses import replace
from typing import Any

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
OFTEN = replace(SMALL, rsrp_period_ms=200, neighbours=8, neighbour_sinr=True)
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
        rsrp_period_ms=5000,
        channel_state_period_s=2,
        start_us=1_767_571_200_000_000,
    )

    messages = list(Simulator(config).messages(120))

    assert Counter(m.stream for m in messages) == {"traffic": 12 * 2, "rsrp": 9 * 24, "channel-state": 9 * 60}
    times_us = [m.event_time_us for m in messages]
    assert times_us == sorted(times_us)
    assert times_us[0] == config.start_us
    for stream in STREAM_KPIS:
        period_us = config.period_us(stream)
        assert {(m.event_time_us - config.start_us) % period_us for m in messages if m.stream == stream} == {0}


def test_ue_streams_are_keyed_by_the_ue_and_traffic_by_the_radio_cell():
    messages = list(Simulator(SMALL).messages(1))

    for message, row in zip(messages, decoded(messages), strict=True):
        assert message.key.decode() == (row.radio_cell_id if isinstance(row, Traffic) else row.ue_id)


@pytest.mark.parametrize("config", [SMALL, OFTEN], ids=["each second", "each 200 ms with SINR"])
def test_history_holds_the_values_of_the_messages(config: SimulatorConfig):
    messages = list(Simulator(config).messages(120))
    history = Simulator(config).history(120)

    on_the_wire: dict[tuple, dict[str, float | None]] = {}
    for message, row in zip(messages, decoded(messages), strict=True):
        slot = row.event_time_us // config.period_us(message.stream)
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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"radio_cells": 0}, "radio_cells"),
        ({"ues": -1}, "ues"),
        ({"traffic_period_s": 0}, "whole seconds"),
        ({"channel_state_period_s": 0}, "whole seconds"),
        ({"rsrp_period_ms": 0}, "rsrp_period_ms = 0"),
        ({"rsrp_period_ms": 180}, "rsrp_period_ms = 180"),
        ({"rsrp_period_ms": 210}, "rsrp_period_ms = 210"),
        ({"neighbours": -1}, "neighbours = -1"),
        ({"neighbours": 9}, "neighbours = 9"),
        ({"speeds_kmh": (60.0, -1.0)}, "-1.0"),
        ({"speeds_kmh": (501.0,)}, "501.0"),
        ({"speeds_kmh": (float("nan"),)}, "nan"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(changes: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        SimulatorConfig(**changes)


def test_what_was_sent_at_the_defaults_is_still_sent():
    """The draws of the generators and their order: one report of three minutes in, as it came before these settings."""
    last = [row for row in decoded(list(Simulator(SMALL).messages(180))) if isinstance(row, Rsrp)][-8]

    # half a step of rounding: another CPU may sum in another order
    assert (last.ue_id, last.radio_cell_id) == ("sim-ue-00001", "sim-00000-0")
    assert [last.rsrp_dbm, last.rsrq_db, last.sinr_db] == pytest.approx([-80.1, -7.1, 11.8], abs=0.11)
    assert [n.radio_cell_id for n in last.neighbours] == ["sim-00000-2", "sim-00003-1", "sim-00000-1", "sim-00003-2"]
    assert [n.rsrp_dbm for n in last.neighbours] == pytest.approx([-84.0, -90.0, -97.1, -102.4], abs=0.11)
    assert {n.sinr_db for n in last.neighbours} == {None}


def test_reports_come_as_often_as_asked_and_other_streams_as_before():
    messages = list(Simulator(OFTEN).messages(120))

    assert Counter(m.stream for m in messages) == {"traffic": 12 * 2, "rsrp": 9 * 600, "channel-state": 9 * 120}
    times_us = [m.event_time_us for m in messages if m.stream == "rsrp"][::9]
    assert set(np.diff(times_us)) == {200_000}
    slots = Simulator(OFTEN).history(1)["rsrp"].slots
    assert (slots - slots[0]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("asked", [0, 4, 8])
def test_a_report_names_as_many_neighbours_as_asked_the_strongest_first(asked: int):
    reports = [
        r for r in decoded(list(Simulator(replace(SMALL, neighbours=asked)).messages(20))) if isinstance(r, Rsrp)
    ]

    assert {len(r.neighbours) for r in reports} == {asked}
    for report in reports:
        levels = [n.rsrp_dbm for n in report.neighbours]
        assert levels == sorted(levels, reverse=True)


def test_more_neighbours_and_their_sinr_change_nothing_else():
    few, many = (
        decoded(list(Simulator(replace(SMALL, **changes)).messages(60)))
        for changes in ({}, {"neighbours": 8, "neighbour_sinr": True})
    )

    for before, after in zip(few, many, strict=True):
        if isinstance(after, Rsrp):
            for neighbour in after.neighbours:
                neighbour.sinr_db = None
            after.neighbours = after.neighbours[:4]
            after.sinr_db = before.sinr_db
        assert before == after


def test_sinr_of_every_reported_radio_cell_is_its_own_level_over_the_loaded_others():
    simulator = Simulator(replace(OFTEN, seed=3, ues=40))
    fleet, load = simulator.fleet, np.linspace(0.1, 0.9, 12)
    fleet.move(0.2)

    reports = fleet.measure(load, 0.2)

    _, true_dbm = fleet.levels()  # nobody has driven on: shadowing stays as well
    power = 10 ** (true_dbm.astype(float) / 10)
    for ue, radio_cells in enumerate(reports.radio_cell):
        for rank, cell in enumerate(radio_cells):
            others = np.arange(12) != cell
            below_db = 10 * np.log10(10**-12.3 + (load * power[ue])[others].sum())
            expected = np.clip(reports.rsrp_dbm[ue, rank] - below_db, -23, 40)
            assert reports.measured_sinr_db[ue, rank] == pytest.approx(expected, abs=0.11)
    error_db = reports.measured_sinr_db[:, 0] - reports.sinr_db
    inside = np.abs(reports.sinr_db) < 20
    assert 0.2 < error_db[inside].std() < 0.8


def test_ues_drive_at_the_speeds_asked_for_in_turn():
    simulator = Simulator(replace(SMALL, rsrp_period_ms=200, speeds_kmh=(36.0, 0.0)))
    before = simulator.fleet.xy_m.copy()

    for _ in simulator.snapshots(1):
        pass

    way_m = np.hypot(*(simulator.fleet.xy_m - before).T)
    np.testing.assert_allclose(way_m[1::2], 0.0)
    assert (way_m[::2] <= 10.001).all()
    assert np.median(way_m[::2]) == pytest.approx(10.0, abs=0.01)
    places = Simulator(replace(SMALL, rsrp_period_ms=200)).fleet.xy_m
    np.testing.assert_array_equal(before, places)


@pytest.mark.parametrize(("period_ms", "later_ms"), [(200, 600), (240, 480), (480, 480), (1000, 1000)])
def test_a_handover_waits_480_ms_of_reports_in_which_another_is_better(period_ms: int, later_ms: int):
    fleet = Simulator(SimulatorConfig(radio_cells=6, ues=1, rsrp_period_ms=period_ms)).fleet
    cells = np.arange(6)[None]
    levels = np.full((1, 6), -100.0, np.float32)
    levels[0, 2] = -80.0
    fleet._hand_over(cells, levels, period_ms / 1000)  # attaches
    levels[0, 5] = -76.0

    waited_ms = 0
    fleet._hand_over(cells, levels, period_ms / 1000)
    while fleet.serving[0] == 2:
        fleet._hand_over(cells, levels, period_ms / 1000)
        waited_ms += period_ms

    assert (fleet.serving[0], waited_ms) == (5, later_ms)


def test_the_time_to_trigger_counts_from_measurement_to_measurement(monkeypatch: pytest.MonkeyPatch):
    """Whatever is due in between: reports each 480 ms and channel state each second make a grid of 40 ms."""
    simulator = Simulator(SimulatorConfig(radio_cells=6, ues=1, rsrp_period_ms=480))
    told: list[float] = []
    measure = simulator.fleet.measure
    monkeypatch.setattr(simulator.fleet, "measure", lambda load, s: told.append(s) or measure(load, s))

    for _ in simulator.snapshots(2):
        pass

    assert told[1:] == pytest.approx([0.48, 0.48, 0.04, 0.44, 0.48])


def test_a_drive_measured_more_often_has_as_many_handovers_and_loses_less():
    """Reports each 200 ms instead of each second: the same A3 acts sooner."""
    rare, often = (
        Simulator(SimulatorConfig(radio_cells=57, ues=60, rsrp_period_ms=period_ms, speeds_kmh=(60.0,)))
        for period_ms in (1000, 200)
    )
    out = [
        np.mean([(s.reports.sinr_db < -8).mean() for s in simulator.snapshots(120) if s.reports is not None])
        for simulator in (rare, often)
    ]

    assert often.fleet.handovers > 100
    assert out[1] < out[0]


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
