"""The policy on forecasts: what it is taught, how it is replayed, and that it is the rule of the hook."""

import numpy as np
import pytest

from netpredict import plugins
from netpredict.evaluate import handover_exact
from netpredict.evaluate.handover_compare import Front, beside, least_failures, undominated
from netpredict.evaluate.handover_labels import REPORTED, World, reports, targets, world_of
from netpredict.evaluate.handover_model import PERIOD_MS, Counts, walk
from netpredict.evaluate.handover_policy import (
    FEATURES,
    PIECE_STEPS,
    UNKNOWN,
    CostRule,
    Prices,
    first_guess,
    forecasts,
    improved,
    lesson_of,
    piece_places,
    training_set,
)
from netpredict.radio import handover_cost
from netpredict.radio.link_failure import sinr_db
from netpredict.traces.ns3_uma import Scene
from netpredict.types import HookBatch, SeriesKey


def scene(seed: int = 1, ues: int = 3, steps: int = 401, cells: int = 57) -> Scene:
    """RSRP that wanders; a few radio cells stand out."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 4, (ues, steps, cells))
    for step in range(1, steps):
        level[:, step] = 0.97 * level[:, step - 1] + 0.25 * level[:, step]
    level += -100 - np.where(np.arange(cells) < 5, 0, 25)
    return Scene("made up", seed, 60.0, level.astype(np.float32))


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(scene())


def random_forecasts(world: World, seed: int = 3) -> np.ndarray:
    """(periods, UEs, radio cells, 3) that know little more than the RSRP."""
    rng = np.random.default_rng(seed)
    known = first_guess(world) + rng.uniform(0, 0.1, first_guess(world).shape)
    known[..., 1:] = rng.uniform(0, 0.1, known[..., 1:].shape)
    known = np.round(known, 4).astype(np.float32)
    known[~np.moveaxis(world.reported, 0, 1)[: len(known)]] = UNKNOWN
    return known


class Heard(CostRule):
    """Notes whom each UE was told to go to in every period, and where it was."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.told: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def decide(self, period, serving, began):
        target = super().decide(period, serving, began)
        self.told.append((serving[0].copy(), began[0].copy(), target[0].copy()))
        return target


@pytest.mark.parametrize("back", [0.0, 0.2])
def test_what_is_scored_is_what_the_hook_decides(world: World, back: float):
    known = random_forecasts(world)
    rule = Heard(known, world.best, [Prices(0.01, back)])
    assert walk(world.radio, rule).handovers.sum() > 20

    plugin = plugins.load("hooks", "handover")
    given = {"rule": "cost", "lead_steps": 1, "handover_cost": 0.01, "back_cost": back, "cooldown_slots": 0}
    hook = plugin.build(plugins.options_of(plugin, given, "handover"))
    ues, cells = world.radio.ues, known.shape[2]
    spec = hook.state_spec()
    state = {name: np.full((ues, cells), array.fill, array.dtype) for name, array in spec.items()}
    compared = 0
    for period, (serving, began, target) in enumerate(rule.told):
        for ue in np.flatnonzero(began <= period * 20):
            rows = np.flatnonzero(world.reported[ue, period])
            if serving[ue] not in rows:
                continue  # a report without its serving radio cell decides nothing, here neither
            batch = one_report(known[period, ue, rows], rows, int(serving[ue]), period)
            fired, after = hook.decide(batch, {name: array[ue, rows] for name, array in state.items()})
            for name, array in after.items():
                state[name][ue, rows] = array
            told = [int(action.value["target"]) for action in fired]
            assert told == ([] if target[ue] < 0 else [target[ue]])
            compared += len(told)
    assert compared > 20


def one_report(known: np.ndarray, cells: np.ndarray, serving: int, period: int) -> HookBatch:
    n = len(cells)
    slot = np.full(n, period, np.int64)
    return HookBatch(
        stream="links",
        period_us=PERIOD_MS * 1000,
        slot=slot,
        slot_time_us=slot * PERIOD_MS * 1000,
        record=np.zeros(n, np.int32),
        columns=("rsrp_dbm", "serving"),
        observed=np.stack([np.full(n, -90.0), cells == serving], axis=1).astype(np.float32),
        levels=(0.5,),
        forecasts={kpi: known[:, None, index, None] for index, kpi in enumerate(handover_cost.KPIS)},
        source=np.zeros(n, np.uint8),
        flags=np.zeros(n, np.uint16),
        key_of=lambda row: SeriesKey(("ue", str(cells[row]))),
    )


def test_a_report_names_the_strongest_other_radio_cells():
    measured = np.full((1, 1, 57), -120.0, np.float32)
    measured[0, 0, [3, 8, 5]] = -90.0, -95.0, -99.0  # 3 and 5 are of one site, 8 of another
    told = {kpi: reports(measured)[0, 0, :, column] for column, kpi in enumerate(REPORTED)}
    row = [3, 8, 5, 20]
    assert told["rsrp_dbm"][row].tolist() == [-90, -95, -99, -120]
    assert told["nbr1_rsrp_dbm"][row].tolist() == [-95, -90, -90, -90]
    assert told["nbr2_rsrp_dbm"][row].tolist() == [-99, -99, -95, -95]
    assert told["offsite_rsrp_dbm"][row].tolist() == [-95, -90, -95, -90]
    # of 8 and 20 the others of the site are too weak to be reported: 16 dB below the strongest
    assert told["onsite_rsrp_dbm"][row].tolist() == [-99, -106, -90, -106]
    ratio = sinr_db(measured)[0, 0]
    np.testing.assert_allclose(told["sinr_db"][[3, 8]], ratio[[3, 8]], atol=0.01)
    np.testing.assert_allclose(told["nbr1_sinr_db"][[3, 8]], ratio[[8, 3]], atol=0.01)


def test_the_strongest_radio_cell_costs_nothing_and_a_lost_one_a_failure(world: World):
    known = targets(world, first_guess(world), 0.1)
    periods = known.shape[1]
    strongest = np.take_along_axis(known[..., 0], world.strongest[:, :periods, None], axis=-1)
    assert not strongest.any()
    assert set(np.unique(known[..., 1:])) == {0.0, 1.0}
    # far below all others T310 runs at once, so neither way is without the failure
    assert known[:, 5 : periods - 20, 40, 1].mean() > 0.95
    assert known[:, 5 : periods - 20, 40, 0].mean() > 0.6


def test_a_higher_price_makes_the_targets_wait(world: World):
    cheap, dear = (targets(world, first_guess(world), price)[..., 0] for price in (0.01, 0.3))
    assert dear[:, :, :5].mean() > cheap[:, :, :5].mean()


def test_what_is_decided_at_a_report_is_the_truth_of_the_next_slot(world: World):
    known = targets(world, first_guess(world), 0.1)
    taught = training_set([lesson_of(world, known)], 2)
    assert taught.values.shape[1:] == (PIECE_STEPS, len(FEATURES.observed))
    assert np.isnan(taught.truth[:, 0]).all()
    measured = reports(world.measured_dbm)
    for piece, (step, ue, cell) in enumerate(piece_places(world, known.shape[1])):
        shown = taught.values[piece, :, : len(REPORTED)]
        np.testing.assert_array_equal(shown, measured[ue, step : step + PIECE_STEPS, cell])
        told = known[ue, step : step + PIECE_STEPS - 1, cell]
        shown = taught.truth[piece, 1:]
        np.testing.assert_array_equal(shown[~np.isnan(shown)], told[~np.isnan(shown)])
        assert (np.isnan(shown[:, 0]) == ~world.reported[ue, step : step + PIECE_STEPS - 1, cell]).all()


def drift(training, name):
    """A predictor with nothing to train, and without TensorFlow."""
    plugin = plugins.load("predictors", "naive")
    return plugin.build(plugins.options_of(plugin, {}, "naive"), training.features, training.output)


def test_forecasts_see_nothing_that_comes_later(world: World):
    predictor = improved(lambda number: [world], drift, 0.1, 2, 2)
    known = forecasts(predictor, world)
    assert known.shape == (world.radio.periods, world.radio.ues, 57, 2, 3)
    changed = world.measured_dbm.copy()
    changed[:, 60:] += 3 * np.random.default_rng(1).normal(size=changed[:, 60:].shape)
    other = World(world.scene, world.radio, changed.astype(np.float32), world.best, world.strongest)
    again = forecasts(predictor, other)
    assert np.array_equal(again[:60], known[:60])
    assert not np.array_equal(again[60:], known[60:])
    reported = np.moveaxis(world.reported, 0, 1)[: len(known)]
    assert (known[~reported] == np.array(UNKNOWN, np.float32)).all()


def counts(failures, handovers, ping_pongs) -> Counts:
    """From (settings, UEs) of one minute."""
    zeros = np.zeros_like(np.asarray(failures))
    return Counts(np.asarray(handovers), zeros, np.asarray(failures), np.asarray(ping_pongs), 1.0)


def test_ours_is_compared_with_the_mixture_of_plain_settings_at_its_price():
    plain = counts([[8, 8], [4, 4], [5, 5]], [[2, 2], [6, 6], [7, 7]], [[0, 0], [1, 1], [1, 1]])
    front = Front(["few", "many", "beaten"], plain, plain, "handovers")
    assert front.rows == [0, 1]
    found = front.change(counts([[3, 3]], [[4, 4]], [[0, 0]]), 0)
    assert (found.plain_failures, found.plain_settings) == (6.0, ("few", "many"))
    assert found.change == pytest.approx(-0.5)
    assert found.low == pytest.approx(-0.5)
    beyond = front.change(counts([[3, 3]], [[9, 9]], [[0, 0]]), 0)
    assert (beyond.plain_failures, beyond.plain_settings) == (4.0, ("many",))
    assert front.change(counts([[9, 9]], [[1, 1]], [[0, 0]]), 0).change is None


def test_the_front_is_chosen_on_the_training_seed():
    tuned = counts([[8, 8], [4, 4], [5, 5]], [[2, 2], [6, 6], [7, 7]], [[0, 0]] * 3)
    scored = counts([[8, 8], [4, 4], [1, 1]], [[2, 2], [6, 6], [5, 5]], [[0, 0]] * 3)
    assert Front(["a", "b", "lucky"], tuned, scored, "handovers").rows == [0, 1]
    assert undominated(np.array([1.0, 1.0, 2.0]), np.array([3.0, 2.0, 2.0])) == [1]


def test_the_least_failures_lie_within_the_limits_or_nearest_to_them():
    found = counts([[1], [3], [5]], [[9], [6], [3]], [[2], [0], [0]])
    assert least_failures(found, 0.5) == 1
    assert least_failures(found, 0.5, handovers=4) == 2
    assert least_failures(found, 5) == 0
    assert least_failures(found, 0.5, handovers=1) == 2


def test_every_round_is_taught_by_the_policy_of_the_one_before_on_worlds_of_its_own(world: World):
    drawn, taught = [], []

    def draw(number):
        drawn.append(number)
        yield world

    def fit(training, name):
        taught.append(training.truth)
        return drift(training, name)

    predictor = improved(draw, fit, 0.1, 2, 1)
    assert drawn == [0, 1]
    by_a3 = lesson_of(world, targets(world, first_guess(world), 0.1)).truth
    by_forecasts = lesson_of(world, targets(world, forecasts(predictor, world)[..., 0, :], 0.1)).truth
    np.testing.assert_array_equal(taught[0], by_a3)
    np.testing.assert_array_equal(taught[1], by_forecasts)
    assert not np.array_equal(by_a3, by_forecasts, equal_nan=True)


def test_where_plain_a3_has_no_failures_the_difference_still_says_something():
    plain = counts([[0, 0, 0, 0]], [[2, 2, 2, 2]], [[0, 0, 0, 0]])
    found = Front(["calm"], plain, plain, "handovers").change(counts([[0, 1, 0, 1]], [[2, 2, 2, 2]], [[0] * 4]), 0)
    assert (found.change, found.difference) == (None, 0.5)
    assert 0 <= found.difference_low < 0.5 < found.difference_high <= 1
    assert not found.is_less


def fronts(ours, plain=([[8, 6, 7, 9], [4, 4, 3, 5]], [[2, 2, 2, 2], [6, 6, 6, 6]])):
    """What is chosen for few of both when ours is the same at every price, on plain A3 of two settings."""
    settings = len(handover_exact._plain_names())
    plain = counts(*(np.array((each * settings)[:settings]) for each in plain), np.zeros((settings, 4), int))
    tuned = counts(*(np.array([each] * len(handover_exact.PRICES)) for each in ours), np.zeros((72, 4), int))
    return plain, tuned


def test_the_rule_on_forecasts_is_taken_only_where_it_has_won_on_the_training_seed():
    plain, wins = fronts(ours=([2, 1, 2, 1], [6, 6, 6, 6]))
    _, alike = fronts(ours=([4, 5, 2, 5], [6, 6, 6, 6]))
    compared = handover_exact._Fronts(plain, plain)
    aim = handover_exact._Aim("few of both", 0.5, 6.0)
    taken = compared.choice(aim, 1, (wins, alike))
    assert (taken.rule, taken.ours, taken.decision_delay_ms) == ("cost", taken.cost.point, 200)
    assert taken.at_equal_handovers.change == pytest.approx(0.0)  # by what is scored, not by what it was chosen on
    left = compared.choice(aim, 1, (alike, wins))
    assert (left.rule, left.ours, left.plain.failures) == ("a3", left.plain, 4.0)
    assert (left.beside_plain.difference, left.beside_plain.difference_high) == (0.0, 0.0)
    assert left.cost.at_equal_handovers.change == pytest.approx(-0.625)  # told, though not taken


def test_a_setting_stands_beside_one_of_plain_a3_whatever_their_prices():
    found = beside("plain", counts([[1, 1]], [[9, 9]], [[3, 3]]), 0, counts([[4, 4]], [[2, 2]], [[0, 0]]), 0)
    assert (found.change, found.difference, found.plain_settings) == (-0.75, -3.0, ("plain",))


def test_the_price_that_is_taught_keeps_within_bounds():
    none = counts([[0]], [[3]], [[0]])
    assert handover_exact.taught_price(none) == handover_exact.TAUGHT_PRICE[0]
