import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio import link
from netpredict.radio.link import Olla, Price, WindowController, advance_price, choose_cqi
from netpredict.radio.tables import cqi_efficiency


@pytest.mark.parametrize(("step_ack", "bler_target", "nack"), [(0.001, 0.01, 0.099), (0.03, 0.1, 0.27)])
def test_the_step_down_follows_from_the_target(step_ack, bler_target, nack):
    assert link.step_nack(step_ack, bler_target) == pytest.approx(nack)
    assert Olla(bler_target, step_ack).step_nack == pytest.approx(nack)


@given(st.floats(1e-5, 0.9), st.floats(1e-4, 1.0))
def test_the_fixed_point_is_the_target(bler_target, step_ack):
    assert link.fixed_point_bler(step_ack, link.step_nack(step_ack, bler_target)) == pytest.approx(bler_target)


def test_at_the_target_the_offset_ends_where_it_began():
    settings, offset = Olla(bler_target=0.1, step_ack=0.03), 0.0
    for transmission in range(1000):
        offset = link.advance_olla(offset, transmission % 10 != 9, settings)
    assert float(offset) == pytest.approx(0.0, abs=1e-9)


def test_the_loop_settles_at_its_target_on_a_channel_that_punishes_boldness():
    settings, rng, offset, nacks = (
        Olla(bler_target=0.1, step_ack=0.03, max_offset=4.0),
        np.random.default_rng(7),
        np.zeros(200),
        0.0,
    )
    for transmission in range(1500):
        ack = rng.random(200) > 1 / (1 + np.exp(-3 * (offset - 0.5)))
        nacks += (~ack).mean() if transmission >= 500 else 0.0
        offset = link.advance_olla(offset, ack, settings)
    assert nacks / 1000 == pytest.approx(0.1, abs=0.005)


def test_an_offset_moves_up_by_an_ack_and_down_by_a_nack():
    moved = link.advance_olla(np.zeros(2), np.array([True, False]), Olla(0.01, 0.001, 4.0))
    assert moved == pytest.approx([0.001, -0.099])


def test_the_offset_freezes_where_the_mcs_would_be_pushed_over_its_bound():
    ack = np.array([True, True, False, False])
    at_lowest, at_highest = np.array([True, False, True, False]), np.array([False, True, False, True])
    moved = link.advance_olla(np.zeros(4), ack, Olla(0.1, 0.03), at_lowest=at_lowest, at_highest=at_highest)
    assert moved == pytest.approx([0.03, 0.0, 0.0, -0.27])


@given(st.lists(st.booleans(), max_size=60), st.floats(0.01, 0.5), st.floats(0.001, 3), st.floats(0.1, 5))
def test_the_offset_stays_within_its_limit(acks, bler_target, step_ack, max_offset):
    settings, offset = Olla(bler_target, step_ack, max_offset), 0.0
    for ack in acks:
        offset = link.advance_olla(offset, ack, settings)
        assert -max_offset <= float(offset) <= max_offset


@pytest.mark.parametrize("wrong", [{"bler_target": 0}, {"bler_target": 1}, {"step_ack": 0}, {"max_offset": -1}])
def test_a_loop_that_cannot_settle_is_refused(wrong):
    with pytest.raises(ConfigError, match="is not allowed"):
        Olla(**wrong)


@pytest.mark.parametrize(
    ("bler", "scheduled", "errors", "expected_bler", "expected_mcs"),
    [
        (0.0, 10, 0, 0.0, 11),
        (0.0, 3, 0, 0.0, 10),
        (0.0, 4, 0, 0.0, 11),
        (0.10, 10, 1, 0.10, 10),
        (0.20, 10, 2, 0.20, 9),
        (0.20, 1, 1, 0.28, 9),
        (0.50, 0, 0, 0.50, 10),
        (0.0, 0, 0, 0.0, 10),
        (0.0, 10, 10, 0.10, 10),
    ],
)
def test_the_window_rule_moves_by_one(bler, scheduled, errors, expected_bler, expected_mcs):
    after, mcs = link.advance_window(bler, 10, scheduled, errors, WindowController())
    assert (float(after), int(mcs)) == (pytest.approx(expected_bler), expected_mcs)


def test_the_window_rule_stops_at_the_mcs_bounds():
    settings = WindowController(lowest_mcs=2, highest_mcs=27)
    _, mcs = link.advance_window(
        np.array([0.0, 1.0]), np.array([27, 2]), np.array([10, 10]), np.array([0, 10]), settings
    )
    assert mcs.tolist() == [27, 2]


def test_the_window_rule_ratchets_down_to_0_when_errors_never_cease():
    bler, mcs, course = 0.2, 28, []
    for _ in range(40):
        bler, mcs = link.advance_window(bler, mcs, scheduled=20, errors=4, settings=WindowController())
        course.append(int(mcs))
    assert course == sorted(course, reverse=True)
    assert course[-1] == 0


@pytest.mark.parametrize(
    "wrong", [{"lower_bler": 0.2}, {"upper_bler": 1.1}, {"weight": 0}, {"lowest_mcs": -1}, {"highest_mcs": -1}]
)
def test_a_window_rule_without_a_band_is_refused(wrong):
    with pytest.raises(ConfigError, match="is not allowed"):
        WindowController(**wrong)


def test_block_error_ratios_come_from_the_counters_as_the_standard_spells_them():
    counts = {
        "TB.IntialErrNbrDl": 10,
        "TB.TotNbrDlInitial": 100,
        "TB.ErrTotNbrDl": 12,
        "TB.TotNbrDl": 120,
        "TB.ResidualErrNbrDl": 1,
        "TB.ErrNbrUlInitial": 5,
        "TB.TotNbrUlInit": 50,
        "TB.ErrTotNbrUl": 6,
        "TB.TotNbrUl": 60,
        "TB.ResidualErrNbrUl": 2,
    }
    assert link.bler_ratios(counts) == {
        "dl_initial": 0.1,
        "dl_all": 0.1,
        "dl_residual": 0.01,
        "ul_initial": 0.1,
        "ul_all": 0.1,
        "ul_residual": 0.04,
    }


def test_a_radio_cell_that_sent_nothing_has_no_block_error_ratio():
    assert link.bler_ratios({"TB.IntialErrNbrDl": 0, "TB.TotNbrDlInitial": 0})["dl_initial"] is None
    assert link.bler_ratios({"TB.TotNbrDlInitial": 10})["dl_initial"] is None


def brute_choice(at_least: list[float], efficiency: list[float], price: float) -> int:
    worth = {c: efficiency[c] * at_least[c] - price * (1 - at_least[c]) for c in range(1, 16)}
    return max(worth, key=lambda c: (round(worth[c], 12), -c))


@pytest.mark.parametrize("table", [1, 2, 3, 4])
@pytest.mark.parametrize("price", [0.0, 0.3, 4.0, 100.0])
def test_the_choice_by_cost_is_the_argmax_over_every_cqi(table, price):
    rng = np.random.default_rng(table)
    at_least = np.sort(rng.uniform(size=(50, 16)), axis=1)[:, ::-1]
    at_least[:, 0] = 1.0
    efficiency = cqi_efficiency(table)

    chosen = choose_cqi(at_least, efficiency, np.full(50, price))

    assert chosen.tolist() == [brute_choice(row.tolist(), efficiency.tolist(), price) for row in at_least]


def test_a_higher_price_never_chooses_a_higher_cqi():
    at_least = np.sort(np.random.default_rng(0).uniform(size=(200, 1, 16)), axis=2)[:, :, ::-1]
    chosen = choose_cqi(at_least, cqi_efficiency(1), np.geomspace(0.01, 100, 30))
    assert (np.diff(chosen, axis=1) <= 0).all()


def test_without_a_forecast_the_lowest_cqi_is_chosen():
    assert choose_cqi(np.full((1, 16), np.nan), cqi_efficiency(1), 1.0).tolist() == [1]
    assert choose_cqi(np.eye(16)[:1], cqi_efficiency(1), 1.0).tolist() == [1]


def test_the_price_stands_still_where_the_errors_are_at_the_target():
    settings = Price(bler_target=0.1, first=2.0, rate=0.2)
    price = np.array(2.0)
    for bler in [1.0] + [0.0] * 9:
        price = advance_price(price, bler, settings)
    assert price == pytest.approx(2.0)
    assert advance_price([2.0, 2.0], [np.nan, 0.1], settings).tolist() == [2.0, 2.0]
    assert advance_price([180.0, 0.1], [1.0, 0.0], Price(rate=10.0, first=2.0)).tolist() == [100.0, 0.1]


@pytest.mark.parametrize(
    "wrong", [{"bler_target": 0.0}, {"bler_target": 1.0}, {"first": 0.01}, {"rate": -1.0}, {"most": 1.0}]
)
def test_prices_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        Price(**wrong)
