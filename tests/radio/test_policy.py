import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio.policy import RrmPolicyRatio, check_sum_of_minima


def test_the_defaults_are_those_of_the_standard():
    assert RrmPolicyRatio() == RrmPolicyRatio(dedicated_percent=0, min_percent=0, max_percent=100)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=3).map(sorted))
def test_ordered_percentages_are_a_policy(percents):
    policy = RrmPolicyRatio(*percents)
    assert [policy.dedicated_percent, policy.min_percent, policy.max_percent] == percents


@pytest.mark.parametrize("percents", [(10, 5, 100), (0, 60, 50), (70, 70, 60)])
def test_percentages_out_of_order_are_refused(percents):
    with pytest.raises(ConfigError, match="dedicated_percent <= min_percent <= max_percent"):
        RrmPolicyRatio(*percents)


@pytest.mark.parametrize("percent", [-1, 101, 50.0, "50", True, None])
def test_only_an_integer_from_0_to_100_is_a_percentage(percent):
    with pytest.raises(ConfigError, match=r"max_percent = .* use an integer in 0\.\.100"):
        RrmPolicyRatio(max_percent=percent)


def test_the_minima_of_a_radio_cell_must_not_exceed_100_percent():
    check_sum_of_minima([RrmPolicyRatio(min_percent=60), RrmPolicyRatio(min_percent=40)])
    check_sum_of_minima([])
    with pytest.raises(ConfigError, match="101"):
        check_sum_of_minima([RrmPolicyRatio(min_percent=60), RrmPolicyRatio(min_percent=41)])
