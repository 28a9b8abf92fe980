from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError, DataError
from netpredict.evaluate.provision import Bases, Family, cost, cost_of_late, tuned, weighted_quantile
from netpredict.radio.policy import cost_quantile

LAST_ONLY = Family(windows=(1,), shares=(0.5,), alphas=())
SMALL = Family(windows=(1, 3), shares=(0.5, 1.0), alphas=(0.5,), seasons={"same of day": (4, 1), "2 days": (4, 2)})


def named(values: np.ndarray, lead: int, family: Family = SMALL) -> dict[str, np.ndarray]:
    return dict(Bases(values.astype(np.float32), family).at(lead))


def test_too_little_costs_c_under_and_too_much_one() -> None:
    assert cost(np.array([10.0, 10.0, 10.0]), np.array([8.0, 10.0, 13.0]), 4.0).tolist() == [8.0, 0.0, 3.0]


@pytest.mark.parametrize(("c_under", "level"), [(1.0, 0.5), (4.0, 0.8), (10.0, 10 / 11)])
def test_the_cheapest_provision_is_the_quantile_of_the_costs(c_under: float, level: float) -> None:
    assert cost_quantile(c_under, 1.0) == pytest.approx(level)
    demand = np.random.default_rng(1).gamma(3.0, 5.0, 20_001)
    at = {share: cost(demand, np.quantile(demand, share), c_under).mean() for share in np.linspace(0.02, 0.98, 49)}
    assert min(at, key=at.__getitem__) == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize("costs", [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_costs_that_decide_nothing_are_refused(costs: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="costs"):
        cost_quantile(*costs)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=30),
    st.sampled_from([1.0, 4.0, 10.0]),
)
def test_no_margin_of_any_grid_beats_the_weighted_quantile(pairs: list[tuple[int, int]], c_under: float) -> None:
    base, demand = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    best = weighted_quantile(demand / base, base, cost_quantile(c_under, 1.0))
    paid = cost(demand, base * best, c_under).sum()
    grid = np.concatenate([np.linspace(0.0, 60.0, 1201), demand / base])
    assert all(paid <= cost(demand, base * margin, c_under).sum() + 1e-9 for margin in grid)


def test_a_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="base above 0"):
        weighted_quantile(np.array([]), np.array([]), 0.5)


def test_bases_know_nothing_later_than_their_step() -> None:
    rng = np.random.default_rng(2)
    values = rng.gamma(2.0, 3.0, (2, 30))
    later = values.copy()
    later[:, 20:] += 100.0
    for lead in (1, 3, 4, 5):
        before, after = named(values, lead), named(later, lead)
        for name in before:
            np.testing.assert_array_equal(before[name][:, :20], after[name][:, :20], err_msg=f"{name}, lead {lead}")


def test_bases_on_a_ramp_are_what_their_names_say() -> None:
    bases = named(np.arange(20.0)[None], 3)
    at_step = {name: base[0, 12] for name, base in bases.items()}
    assert at_step["last value"] == 12
    assert at_step["median of 3"] == 11
    assert at_step["maximum of 3"] == 12
    assert at_step["same of day"] == 11  # the target is 15, a day of 4 steps before it 11
    assert at_step["2 days"] == 9
    assert at_step["EWMA 0.5"] == pytest.approx(11.0, abs=0.01)
    assert np.isnan(bases["2 days"][0, 4])


def test_a_season_shorter_than_the_lead_goes_back_as_far_as_it_must() -> None:
    assert named(np.arange(20.0)[None], 6)["same of day"][0, 12] == 10  # the target is 18, two days before it


def test_the_margin_finds_the_factor_that_was_put_in() -> None:
    level = np.array([[10.0, 20.0, 40.0] * 10])
    values = np.repeat(level, 2, axis=0)
    values[:, 1::2] = 1.25 * values[:, 0::2]  # every second step is a quarter above the one before it
    bases = Bases(values, LAST_ONLY)
    rule, base = tuned(values, bases, range(0, 28, 2), 1, 4.0)[0]
    assert (rule.base, rule.kind) == ("last value", "times")
    assert rule.margin.tolist() == [1.25, 1.25]
    assert rule.training_cost == pytest.approx(0.0)
    np.testing.assert_allclose(rule.provided(base)[:, 28], values[:, 29])


def test_series_that_differ_get_margins_of_their_own() -> None:
    steady = np.full(40, 10.0)
    steep = np.tile([10.0, 30.0], 20)
    values = np.stack([steady, steep])
    rule, _ = tuned(values, Bases(values, LAST_ONLY), range(0, 38, 2), 1, 4.0)[0]
    assert "by series" in rule.kind
    assert rule.training_cost == pytest.approx(0.0)


def test_rules_are_ranked_on_the_training_part_alone() -> None:
    rng = np.random.default_rng(4)
    values = np.tile([5.0, 9.0, 2.0, 7.0], 30)[None] + rng.normal(0, 0.1, (1, 120))
    values[:, 80:] = rng.normal(50.0, 0.01, (1, 40))  # later the last value is far better than the season
    rules = [rule.base for rule, _ in tuned(values, Bases(values, SMALL), range(12, 76), 1, 1.0)]
    assert rules[0] == "2 days"


def test_a_base_at_zero_stays_out_of_the_factor() -> None:
    values = np.array([[0.0, 4.0, 2.0, 4.0, 2.0, 4.0, 0.0, 4.0, 2.0, 4.0]])
    rules = {rule.kind: rule for rule, _ in tuned(values, Bases(values, LAST_ONLY), range(0, 9, 2), 1, 1.0)}
    assert rules["times"].margin.tolist() == [2.0]
    assert rules["times"].training_cost == pytest.approx((4 + 0 + 0 + 4 + 0) / 5)


def test_a_late_decision_leaves_the_one_before_it_for_its_share_of_the_step() -> None:
    demand, provided = np.array([[10.0, 10.0, 10.0]]), np.array([[10.0, 6.0, 10.0]])
    assert cost_of_late(demand, provided, 0.0, 4.0).tolist() == [[0.0, 16.0, 0.0]]
    assert cost_of_late(demand, provided, 0.25, 4.0).tolist() == [[0.0, 12.0, 4.0]]
