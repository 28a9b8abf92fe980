"""A whole evaluation on short simulated scenes, by a predictor with nothing to train."""

from pathlib import Path

import msgspec
import pytest

from netpredict import plugins
from netpredict.evaluate import handover_exact, handover_simulated
from netpredict.evaluate.handover_result import Result
from netpredict.evaluate.handover_wish import Wish
from netpredict.traces import simulated_scenes


def evaluated(scene: str) -> Result:
    def naive(recipe, scene, tell):
        plugin = plugins.load("predictors", "naive")
        return lambda training, name: plugin.build(plugin.options(), training.features, training.output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_scenes, "STEPS", 401)
        patch.setattr(handover_exact, "_fitting", naive)
        patch.setattr(handover_exact, "FILTER_KS", (0, 4))
        return handover_simulated.run(Path(), Wish(200, limit_traces=4, scenes=(scene,)), lambda told: None)


@pytest.fixture(scope="module")
def result() -> Result:
    return evaluated("v120")


def test_each_aim_is_chosen_with_and_without_delay(result: Result):
    (scene,) = result.scenes
    assert [(each.decision_delay_ms, each.aim) for each in scene.choices] == [
        (delay, aim) for delay in (0, 200) for aim in ("few ping-pongs", "few handovers", "few of both")
    ]
    assert scene.ue_minutes == pytest.approx(4 * 199 * 0.2 / 60)
    assert len(scene.curve) == len(handover_exact.PRICES)


def test_what_does_not_win_is_left_to_plain_a3(result: Result):
    (scene,) = result.scenes
    for choice in scene.choices:
        has_won = choice.tuned.at_equal_ping_pongs.is_less and choice.tuned.at_equal_handovers.is_less
        assert choice.rule == ("cost" if has_won else "a3")
        assert choice.ours == (choice.cost.point if has_won else choice.plain)
        if not has_won:
            assert choice.beside_plain.difference == 0
    assert "a3" in {choice.rule for choice in scene.choices}


def test_tables_report_and_json_tell_all_of_it(result: Result):
    ours, forecasts, plain = handover_exact.tables(result)
    assert (len(ours.rows), len(forecasts.rows), len(plain.rows)) == (6, 12, 1)
    assert all(len(each) == len(table.columns) for table in (ours, forecasts, plain) for each in table.rows)
    page = handover_exact.write_report(result)
    assert "the hook stays in shadow and ours is plain A3: v120." in page
    assert "difference_low" in msgspec.json.encode(result).decode()


def test_nothing_is_taught_where_plain_a3_has_no_failure():
    calm = evaluated("v003")
    (scene,) = calm.scenes
    assert scene.plain.failures == 0
    assert (scene.curve, {choice.rule for choice in scene.choices}) == ([], {"a3"})
    assert all(choice.cost is None and choice.beside_plain.difference == 0 for choice in scene.choices)
    assert len(next(handover_exact.tables(calm)).rows) == 6
    assert "nothing was taught" in handover_exact.write_report(calm)
