"""Trials: exact p-values, looks at fixed numbers of buckets, and who wins."""

import math
from itertools import product

import numpy as np
import pytest

from netpredict.config import LearnConfig
from netpredict.learn.challenge import differences, looks_at, signed_rank, verdict

LEARN = LearnConfig(challenge_buckets_min=8, challenge_buckets_max=20, challenge_rows_min=10)


def by_hand(values):
    """All 2**n signs of the ranks of the values' sizes, ties sharing the mean of theirs."""
    kept = [value for value in values if value]
    sizes = sorted(abs(value) for value in kept)
    ranks = [np.mean([place + 1 for place, size in enumerate(sizes) if size == abs(value)]) for value in kept]
    reached = sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0)
    sums = [sum(rank for rank, up in zip(ranks, ups, strict=True) if up) for ups in product((0, 1), repeat=len(kept))]
    return np.mean([total <= reached for total in sums]), np.mean([total >= reached for total in sums])


@pytest.mark.parametrize(
    "values",
    [
        [-1.0, -2.0, -3.0, -4.0, -5.0],
        [1.5, -2.5, 3.5, -4.5, 5.5, 6.5],
        [1.0, 1.0, -1.0, 2.0, 2.0, -3.0, 0.0],
        [0.5],
    ],
)
def test_the_p_values_are_those_of_all_signs_counted_out(values):
    np.testing.assert_allclose(signed_rank(values), by_hand(values), rtol=1e-12)


def test_known_p_values():
    assert signed_rank([-1, -2, -3, -4, -5]) == (1 / 32, 1.0)
    assert signed_rank([0.0, 0.0]) == (1.0, 1.0)
    better, worse = signed_rank(np.random.default_rng(1).normal(-1, 1, 96).tolist())
    assert better < 1e-6 < 0.5 < worse


def test_a_trial_is_looked_at_after_fixed_numbers_of_buckets():
    assert looks_at(LEARN) == [8, 16, 20]
    assert looks_at(LearnConfig(challenge_buckets_min=96, challenge_buckets_max=96)) == [96]


def test_the_better_one_is_promoted_and_the_worse_one_refused_at_the_first_look():
    won, lost = verdict([-0.1, -0.2] * 4, LEARN), verdict([0.1, 0.2] * 4, LEARN)
    assert (won.result, won.detail["buckets"], "lower over 8 buckets" in won.why) == ("promoted", 8, True)
    assert (lost.result, "higher over 8 buckets" in lost.why) == ("refused", True)
    assert won.detail["gain"] == pytest.approx(1 - math.exp(-0.15))


def test_before_the_least_number_there_is_no_verdict_however_clear():
    assert verdict([-1.0] * 7, LEARN).result == ""
    assert verdict([-1.0] * 7, LEARN).detail == {"buckets": 7}


def test_when_somebody_looks_changes_nothing():
    """A lead at bucket 10 is no verdict: that is not a look, and at 16 it is gone."""
    logs = [0.1, -0.1] * 4 + [-0.5] * 2 + [0.4] * 6 + [0.1, -0.1] * 2
    found = [verdict(logs[:n], LEARN) for n in range(len(logs) + 1)]
    assert [each.result for each in found[:20]] == [""] * 20
    assert found[20].result == "refused"
    assert "no better for certain" in found[20].why


def test_equal_versions_are_seldom_promoted():
    """Over all looks together no more often than challenge_alpha says, give or take."""
    rng = np.random.default_rng(2)
    promoted = sum(verdict(rng.normal(0, 1, 20).tolist(), LEARN).result == "promoted" for _ in range(400))
    assert promoted / 400 <= 0.05


def row(model_id, bucket, loss, n=100, kpi="cqi"):
    return {"model_id": model_id, "kpi": kpi, "bucket": bucket, "n": n, "pinball": round(loss * 1000 * n)}


def test_only_buckets_that_both_were_scored_on_count():
    rows = [row(1, bucket, 2.0) for bucket in range(6)] + [row(2, bucket, 4.0) for bucket in range(2)]
    rows += [row(2, 2, 9.0, n=80), row(2, 3, 9.0, n=5)]  # while it warms up it sees other forecasts
    assert differences(rows, 1, 2, 10) == pytest.approx([-math.log(2)] * 2, abs=1e-3)
    assert differences(rows, 1, 3, 10) == []


def test_every_kpi_weighs_the_same_whatever_its_unit():
    rows = [row(1, 0, 1.0), row(2, 0, 2.0), row(1, 0, 2e6, kpi="kbps"), row(2, 0, 1e6, kpi="kbps")]
    assert differences(rows, 1, 2, 10) == pytest.approx([0.0], abs=1e-3)
