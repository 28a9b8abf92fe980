from netpredict.forecast.crossing import Crossing, crossing

LEVELS = (0.1, 0.5, 0.9)


def spread(*points: float) -> list[list[float | None]]:
    return [[point - 10, point, point + 10] for point in points]


def test_the_interval_is_when_each_quantile_first_passes():
    assert crossing(spread(60, 72, 81, 95), LEVELS, 50.0, 80.0) == Crossing(earliest=2, middle=3, latest=4)


def test_what_is_not_reached_within_the_horizon_is_open():
    assert crossing(spread(60, 72), LEVELS, 50.0, 80.0) == Crossing(earliest=2, middle=None, latest=None)
    assert crossing(spread(60, 70), LEVELS, 50.0, 80.0) is None


def test_beyond_already_is_now():
    assert crossing(spread(60, 70), LEVELS, 80.1, 80.0) == Crossing(0, 0, 0)
    assert crossing(spread(60, 70), LEVELS, None, 80.0) is None


def test_a_missing_forecast_passes_nothing():
    assert crossing([[None, None, None], [None, None, None]], LEVELS, 10.0, 80.0) is None


def test_the_soonest_stands_first_and_what_is_open_last():
    soon, wide, later, never = Crossing(1, 2, 3), Crossing(1, 2, None), Crossing(1, 3, 3), Crossing(1, None, None)
    assert sorted([never, later, wide, soon], key=lambda each: each.rank) == [soon, wide, later, never]
