import numpy as np
import pytest

from netpredict.errors import PluginError
from netpredict.forecast.running import PAD_ROWS, ROWS_MAX, STEPS, RunningPredictor
from netpredict.forecast.series import SeriesTable
from netpredict.plugins import load
from netpredict.testing import LeakyMean
from netpredict.types import FeatureSpec, OutputSpec, StateArray

FEATURES = FeatureSpec(("prb_use_dl_percent",), 60_000_000)
OUTPUT = OutputSpec(("prb_use_dl_percent",), 3, (0.1, 0.5, 0.9))
BAD = 666.0


class Touchy(LeakyMean):
    """Raises when a value is 666, answers a poisoned state at 777; counts its calls and their sizes."""

    def __init__(self, padded=False):
        super().__init__(FEATURES, OUTPUT)
        self.padded = padded
        self.sizes = []

    def advance(self, features, hidden):
        self.sizes.append(len(features))
        if (features[:, 0] == BAD).any():
            raise ValueError("six hundred and sixty-six")
        outputs, after = super().advance(features, hidden)
        after["mean"] = np.where(features[:, :1] == 777.0, np.nan, after["mean"])
        return outputs, after


def running(predictor, rows=40):
    table = SeriesTable(64)
    made = RunningPredictor("p", "v1", 1, predictor)
    table.add_columns(made.columns())
    for number in range(rows):
        table.allocate(0, str(number), number)
    return made, table


def features(values):
    found = np.zeros((len(values), FEATURES.width), np.float32)
    found[:, 0] = values
    return found


def state(made, table, row):
    return {name: table.column(name)[row].tolist() for name in made.columns()}


def test_calls_are_padded_to_sixteen_times_a_power_of_two():
    predictor = Touchy(padded=True)
    made, table = running(predictor)
    for n in (1, 16, 17, 32, 33):
        answer = made.advance(table, np.arange(n), features([1.0] * n))
        assert answer.values.shape == (n, 1, 3, 3)
    assert predictor.sizes == [16, 16, 32, 32, 64]
    assert PAD_ROWS == 16


def test_long_batches_are_cut():
    predictor = Touchy()
    made, table = running(predictor, 2 * ROWS_MAX + 5)
    answer = made.advance(table, np.arange(2 * ROWS_MAX + 5), features(np.arange(2 * ROWS_MAX + 5) % 100))
    assert predictor.sizes == [ROWS_MAX, ROWS_MAX, 5]
    assert answer.values[-1, 0, 0, 1] == (2 * ROWS_MAX + 4) % 100


@pytest.mark.parametrize("padded", [False, True])
def test_a_row_gets_the_same_answer_in_any_company(padded):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 100, (5, 40))
    values[2, [0, 7, 8, 39]] = BAD
    values[3, 11] = 777.0
    (together, one), (alone, two) = running(Touchy(padded)), running(Touchy(padded))
    for step in values:
        whole = together.advance(one, np.arange(40), features(step))
        for row in range(40):
            single = alone.advance(two, np.array([row]), features(step[[row]]))
            np.testing.assert_array_equal(whole.values[row], single.values[0])
            assert whole.failed[row] == single.failed[0]
    for name in together.columns():
        np.testing.assert_array_equal(one.column(name), two.column(name))


def test_a_raising_predictor_costs_its_own_rows_and_starts_them_cold():
    made, table = running(Touchy())
    for value in (10.0, 20.0):
        made.advance(table, np.arange(40), features([value] * 40))
    answer = made.advance(table, np.arange(40), features([BAD if row == 13 else 30.0 for row in range(40)]))
    assert np.flatnonzero(answer.failed).tolist() == [13]
    assert np.isnan(answer.values[13]).all()
    assert np.isfinite(np.delete(answer.values, 13, axis=0)).all()
    assert made.failures == 1
    assert state(made, table, 13) == state(*running(Touchy()), 0)
    assert made.steps(table, np.array([12, 13])).tolist() == [3, 0]


def test_a_predictor_that_always_raises_fails_every_row_and_no_more():
    made, table = running(Touchy())
    answer = made.advance(table, np.arange(40), features([BAD] * 40))
    assert answer.failed.all()
    assert made.failures == 40


def test_a_poisoned_hidden_state_is_reset_in_its_own_row_only():
    made, table = running(Touchy())
    made.advance(table, np.arange(3), features([10.0] * 3))
    answer = made.advance(table, np.arange(3), features([20.0, 777.0, 20.0]))
    assert not answer.failed.any()
    assert state(made, table, 1) == state(*running(Touchy()), 0)
    assert state(made, table, 0) == state(made, table, 2)
    assert made.steps(table, np.arange(3)).tolist() == [2, 0, 2]


def test_running_out_of_memory_is_nobodys_answer():
    class Greedy(Touchy):
        def advance(self, features, hidden):
            raise MemoryError

    made, table = running(Greedy())
    with pytest.raises(MemoryError):
        made.advance(table, np.arange(3), features([1.0] * 3))


@pytest.mark.parametrize("fault", ["shape", "missing kpi", "missing state", "state shape", "writes"])
def test_a_broken_contract_is_a_failure_and_leaves_no_half_state(fault):
    class Broken(Touchy):
        def advance(self, features, hidden):
            outputs, after = super().advance(features, hidden)
            if fault == "shape":
                outputs = {kpi: values[:, :, :1] for kpi, values in outputs.items()}
            elif fault == "missing kpi":
                outputs = {}
            elif fault == "missing state":
                del after["error"]
            elif fault == "state shape":
                after["error"] = after["error"][:, :, None]
            else:
                features[:] = 0
            return outputs, after

    made, table = running(Broken())
    answer = made.advance(table, np.arange(3), features([1.0] * 3))
    assert answer.failed.all()
    assert state(made, table, 0) == state(*running(Touchy()), 0)


def test_steps_saturate():
    made, table = running(Touchy())
    table.column(made.prefix + STEPS)[0] = 65_534
    for expected in (65_535, 65_535):
        made.advance(table, np.array([0]), features([1.0]))
        assert made.steps(table, np.array([0]))[0] == expected


class Counting(LeakyMean):
    """Keeps an array of the name that the table has for itself."""

    def state_spec(self):
        return {**super().state_spec(), STEPS: StateArray((1,))}


def test_a_hidden_state_with_the_name_of_a_fixed_column_is_refused():
    with pytest.raises(PluginError, match="another name"):
        running(Counting(FEATURES, OUTPUT))


@pytest.mark.parametrize("plugin", ["naive", "drift", "ewma"])
def test_a_predictor_without_weights_runs_on_the_table(plugin):
    found = load("predictors", plugin)
    made, table = running(found.build(found.options(), FEATURES, OUTPUT))
    rows = np.arange(20)
    for step in range(3):
        answer = made.advance(table, rows, features(rows + step))
    assert made.failures == 0
    assert not answer.failed.any()
