import numpy as np

from netpredict.forecast.fallback import climb_down
from netpredict.types import Source

SHAPE = (4, 2, 3, 3)


def answer(value):
    return np.full(SHAPE, value, np.float32)


def test_each_kpi_of_each_row_takes_the_first_rung_that_answers():
    model, seasonal, naive = answer(1), answer(2), answer(3)
    model[0, 0, 2, 1] = np.nan  # one lead of one KPI
    model[1, 1, 0, 0] = np.inf
    seasonal[1, 1] = np.nan
    naive[3] = np.nan
    usable = np.array([True, True, False, False])
    seasonal[3, 0] = np.nan
    values, sources = climb_down(
        [(Source.MODEL, model, usable), (Source.SEASONAL, seasonal, None), (Source.NAIVE, naive, None)], SHAPE
    )
    m, s, n, x = Source.MODEL, Source.SEASONAL, Source.NAIVE, Source.NONE
    assert sources.tolist() == [[s, m], [m, n], [s, s], [x, s]]
    assert values[0, 0, 0, 0] == 2
    assert values[0, 1, 0, 0] == 1
    assert values[1, 1, 0, 0] == 3
    assert np.isnan(values[3, 0]).all()
    assert np.isfinite(values[:3]).all()


def test_no_rung_no_forecast():
    values, sources = climb_down([(Source.MODEL, None, None)], SHAPE)
    assert np.isnan(values).all()
    assert (sources == Source.NONE).all()


def test_the_answers_are_left_alone():
    model, naive = answer(1), answer(3)
    model[0] = np.nan
    before = model.copy()
    climb_down([(Source.MODEL, model, None), (Source.NAIVE, naive, None)], SHAPE)
    np.testing.assert_array_equal(model, before)
