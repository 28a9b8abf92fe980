"""Cases made by hand: values whose right scores are known."""

import numpy as np

from netpredict.evaluate.cases import LEVELS, Case
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet


def case_of(values, horizon_steps: int = 3, names: tuple[str, ...] | None = None) -> Case:
    """Values (S, T) of one KPI, the last fifth scored."""
    grid = np.asarray(values, np.float32)[:, :, None]
    steps = grid.shape[1]
    features, output = FeatureSpec(("value",), 1_000_000), OutputSpec(("value",), horizon_steps, LEVELS)
    scored_from = round(0.8 * steps)
    names = names or tuple(f"s{number}" for number in range(len(grid)))
    first_slot = np.zeros(len(grid), np.int64)
    training = TrainingSet(features, output, grid[:, :scored_from], first_slot, round(0.6 * steps), names)
    return Case("ramp", "made by hand", "value", "", training, grid, scored_from)


def silent(*_: object) -> None:
    """Told about train_epochs, says nothing."""
