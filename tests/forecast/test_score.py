"""Rings and sums against a plain reference that keeps every forecast in a dictionary."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.forecast.calibrate import Cells
from netpredict.forecast.score import PendingRing, Scoreboard, sampled
from netpredict.radio.quantities import kpi_of
from netpredict.types import MISSING_TICKS, Source

KPIS, HORIZON, LEVELS = 2, 3, (0.1, 0.5, 0.9)
SHAPE = (KPIS, HORIZON, len(LEVELS))

# per series: slots rise by 1 or jump over a gap
walks = st.lists(st.lists(st.sampled_from([1, 1, 1, 2, 3, 4, 9]), min_size=1, max_size=14), min_size=1, max_size=4)


def play(walks, seed, first=-7):
    """Rounds of (rows, slot, truth, forecast, source, issue, season): each series takes its next step, side by side."""
    rng = np.random.default_rng(seed)
    slot = [first + row for row in range(len(walks))]
    for number in range(max(map(len, walks))):
        rows = np.array([row for row, walk in enumerate(walks) if number < len(walk)])
        for row in rows.tolist():
            slot[row] += walks[row][number]
        n = len(rows)
        truth = rng.integers(-50, 50, (n, KPIS)).astype(np.int32) * rng.choice([1, 10**7], (n, KPIS), p=[0.9, 0.1])
        truth[rng.random((n, KPIS)) < 0.2] = MISSING_TICKS
        ticks = np.sort(rng.integers(-60, 60, (n, *SHAPE)), axis=-1).astype(np.int32) // rng.choice([1, 50])
        season = rng.integers(-60, 60, (n, KPIS, HORIZON)).astype(np.int32)
        season[rng.random(season.shape) < 0.3] = MISSING_TICKS
        sources = rng.choice([0, 0, 1, 2, 3], (n, KPIS)).astype(np.uint8)
        issue = rng.random(n) < 0.9
        yield rows, np.array([slot[row] for row in rows]), truth.astype(np.int32), ticks, sources, issue, season


@settings(max_examples=150, deadline=None)
@given(walks, st.integers(0, 99))
def test_a_ring_holds_what_a_dictionary_holds(walks, seed):
    ring, plain = PendingRing(*SHAPE, seasonal=True), {}
    ring.ensure(len(walks))
    for rows, slot, truth, ticks, sources, issue, season in play(walks, seed):
        found, naive, seasonal, from_ = ring.due(rows, slot)
        for place, (row, at) in enumerate(zip(rows.tolist(), slot.tolist(), strict=True)):
            for lead in range(1, HORIZON + 1):
                known = plain.get((row, at - lead))
                if known is None:
                    assert (from_[place, lead - 1] == Source.NONE).all()
                else:
                    assert found[place, lead - 1].tolist() == known[0][:, lead - 1].tolist()
                    assert naive[place, lead - 1].tolist() == known[1].tolist()
                    assert from_[place, lead - 1].tolist() == known[2].tolist()
                    expected = np.where(known[3][:, lead - 1] == MISSING_TICKS, known[1], known[3][:, lead - 1])
                    assert seasonal[place, lead - 1].tolist() == expected.tolist()
        ring.add(rows[issue], slot[issue], ticks[issue], truth[issue], sources[issue], season[issue])
        for place in np.flatnonzero(issue).tolist():
            plain[int(rows[place]), int(slot[place])] = ticks[place], truth[place], sources[place], season[place]


@settings(max_examples=150, deadline=None)
@given(walks, st.integers(0, 99), st.booleans())
def test_sums_are_exactly_those_of_a_plain_count(walks, seed, has_season):
    board, plain, sums = Scoreboard(KPIS, HORIZON, LEVELS, has_season), {}, Counter()
    board.ensure_lanes(2)
    board.pending.ensure(len(walks))
    lane_of = lambda row: int(row >= len(walks) / 2)  # noqa: E731
    for rows, slot, truth, ticks, sources, issue, season in play(walks, seed):
        board.score(rows, np.array([lane_of(row) for row in rows.tolist()]), slot, truth)
        for place, (row, at) in enumerate(zip(rows.tolist(), slot.tolist(), strict=True)):
            for lead in range(1, HORIZON + 1):
                if (row, at - lead) in plain:
                    add_by_hand(sums, lane_of(row), lead, truth[place].tolist(), plain[row, at - lead])
        board.pending.add(rows[issue], slot[issue], ticks[issue], truth[issue], sources[issue], season[issue])
        season = season if has_season else np.full_like(season, MISSING_TICKS)
        for place in np.flatnonzero(issue).tolist():
            said = (ticks[place].tolist(), truth[place].tolist(), sources[place], season[place].tolist())
            plain[int(rows[place]), int(slot[place])] = said
    for lane in (0, 1):
        found = {}
        for row in board.sums(lane):
            place = (lane, row.source, row.kpi, row.lead_steps)
            errors = (row.abs_ticks, row.square_ticks, row.truth_abs_ticks, row.naive_abs_ticks, row.seasonal_abs_ticks)
            values = (row.n, row.flat, *errors, *row.below, *row.pinball)
            found |= {(*place, index): value for index, value in enumerate(values)}
        assert +Counter(found) == +Counter({key: n for key, n in sums.items() if key[0] == lane})


def add_by_hand(sums, lane, lead, truth, forecast):
    ticks, observed, sources, season = forecast
    for kpi, y in enumerate(truth):
        if MISSING_TICKS in (y, observed[kpi]) or sources[kpi] == Source.NONE:
            continue
        quantiles, place = ticks[kpi][lead - 1], (lane, int(sources[kpi]), kpi, lead)
        error = y - quantiles[1]
        flat = quantiles == [y] * len(quantiles)
        known = season[kpi][lead - 1]
        seasonal = observed[kpi] if known == MISSING_TICKS else known
        values = [1, int(flat), abs(error), error * error, abs(y), abs(y - observed[kpi]), abs(y - seasonal)]
        values += [
            int((y < q or (y == q and level >= 0.5)) and not flat) for level, q in zip(LEVELS, quantiles, strict=True)
        ]
        milli = [round(1000 * level) for level in LEVELS]
        values += [m * (y - q) if y > q else (1000 - m) * (q - y) for m, q in zip(milli, quantiles, strict=True)]
        for index, value in enumerate(values):
            sums[(*place, index)] += value


def one_series(board, forecasts):
    """Scores truths 0, 0, 0 … against the same forecast ticks (levels,) issued at each slot."""
    for slot in range(forecasts):
        board.score(np.array([0]), np.array([0]), np.array([slot]), np.zeros((1, KPIS), np.int32))
        ticks = np.broadcast_to(np.array([-5, 1, 5], np.int32), (1, *SHAPE)).copy()
        board.pending.add(np.array([0]), np.array([slot]), ticks, np.zeros((1, KPIS), np.int32), np.zeros((1, KPIS)))


def test_forgotten_rows_are_never_scored():
    board = Scoreboard(KPIS, HORIZON, LEVELS)
    board.ensure_lanes(1)
    board.pending.ensure(1)
    one_series(board, 3)
    before = list(board.sums(0))
    board.pending.forget(np.array([0, 10**6]))
    board.score(np.array([0]), np.array([0]), np.array([3]), np.zeros((1, KPIS), np.int32))
    assert list(board.sums(0)) == before


def test_sums_survive_a_restart_and_end_with_the_bucket():
    board, other = Scoreboard(KPIS, HORIZON, LEVELS), Scoreboard(KPIS, HORIZON, LEVELS)
    for made in (board, other):
        made.ensure_lanes(2)
        made.pending.ensure(1)
    one_series(board, 9)
    other.restore(1, list(board.sums(0)))
    assert list(other.sums(1)) == list(board.sums(0)) != []
    for lane, made in ((0, board), (1, other)):
        made.close_bucket(lane)
        assert list(made.sums(lane)) == []
    np.testing.assert_array_equal(board.factor[0], other.factor[1])
    assert (other.factor[0] == 1).all()


def test_new_lanes_and_rows_leave_the_old_ones_alone():
    board = Scoreboard(KPIS, HORIZON, LEVELS)
    board.ensure_lanes(1)
    board.pending.ensure(1)
    one_series(board, 9)
    before = list(board.sums(0))
    ring = {name: getattr(board.pending, name)[0].tolist() for name in ("ticks", "issued", "observed", "sources")}
    board.ensure_lanes(5)
    board.pending.ensure(1000)
    assert list(board.sums(0)) == before
    assert {name: getattr(board.pending, name)[0].tolist() for name in ring} == ring
    board.clear(0)
    assert list(board.sums(0)) == []


def test_memory_is_for_scored_series_only():
    ring = PendingRing(1, 12, 3)
    assert ring.ticks.size == 0
    ring.ensure(100)
    assert ring.capacity == 128


@pytest.mark.parametrize("share", [1.0, 0.5, 0.125])
def test_the_hash_sample_has_its_share_and_is_nested(share):
    hashes = np.random.default_rng(0).integers(0, 2**32, 20_000).tolist()
    chosen = {value for value in hashes if sampled(value, share)}
    assert len(chosen) / len(hashes) == pytest.approx(share, abs=0.02)
    assert {value for value in hashes if sampled(value, share / 2)} <= chosen


def test_the_places_of_a_kpi_share_its_sums_and_its_calibration():
    places, series = 2, 3
    grid = Scoreboard(KPIS * places, HORIZON, LEVELS, places=places)
    plain = Scoreboard(KPIS, HORIZON, LEVELS)
    for board, rows in ((grid, series), (plain, series * places)):
        board.ensure_lanes(1)
        board.pending.ensure(rows)
    rng = np.random.default_rng(4)
    for slot in range(20):
        truth = rng.integers(-50, 50, (series, KPIS, places)).astype(np.int32)
        ticks = np.sort(rng.integers(-60, 60, (series, KPIS, places, HORIZON, len(LEVELS))), axis=-1).astype(np.int32)
        for board in (grid, plain):
            rows, said, seen = np.arange(series), ticks.reshape(series, -1, HORIZON, len(LEVELS)), truth
            if board is plain:  # the same, each place a series of its own
                rows = np.arange(series * places)
                said, seen = (
                    np.moveaxis(part, 2, 1).reshape(len(rows), *part[:, :, 0].shape[1:]) for part in (ticks, truth)
                )
            seen, lane, slots = seen.reshape(len(rows), -1), np.zeros_like(rows), np.full_like(rows, slot)
            board.score(rows, lane, slots, seen)
            board.pending.add(rows, slots, said, seen, np.zeros(seen.shape))
    assert list(grid.sums(0)) == list(plain.sums(0))
    for board in (grid, plain):
        board.close_bucket(0)
    np.testing.assert_array_equal(grid.factors(np.array([0])), np.repeat(plain.factors(np.array([0])), places, axis=1))


def test_a_truth_of_an_integer_kpi_lies_under_a_quantile_in_its_class_as_often_as_the_class_is_filled():
    """Quantiles at 8.75, 9 and 9.25 of a class that fills 8.5 to 9.5: a quarter, a half, three quarters."""
    board = Scoreboard(1, 1, LEVELS, cells=Cells([kpi_of("cqi")]))
    board.ensure_lanes(1)
    board.pending.ensure(1)
    for slot in range(1001):
        one = np.array([0])
        board.score(one, one, np.array([slot]), np.array([[900]], np.int32))
        ticks = np.array([875, 900, 925], np.int32).reshape(1, 1, 1, 3)
        board.pending.add(
            one, np.array([slot]), ticks, np.array([[900]], np.int32), np.array([[Source.MODEL]], np.uint8)
        )
    (row,) = board.sums(0)
    assert (row.n, row.abs_ticks) == (1000, 0)
    np.testing.assert_allclose(row.below, [250, 500, 750], atol=15)
