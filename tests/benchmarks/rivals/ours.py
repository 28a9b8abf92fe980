"""netpredict's GRU on the task, through the door that `netpredict train` uses."""

from importlib.metadata import version

import numpy as np
from task import LEARNING_RATE, LEVELS, Task, now_s, run

from netpredict.evaluate.rolling import roll
from netpredict.plugins import load, options_of
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet


def work(task: Task):
    """Train as ``netpredict train`` does, without a validation part; then forecast the held-out part as live."""
    plugin = load("predictors", "gru")
    told = {
        "units": task.units,
        "train_epochs": task.train_epochs,
        "patience": task.train_epochs,
        "minibatch_size": task.minibatch,
        "bptt_steps": task.lookback_steps,
        "learning_rate": LEARNING_RATE,
        "seed": task.seed,
    }
    features = FeatureSpec(("value",), task.period_us)
    output = OutputSpec(("value",), task.horizon_steps, LEVELS)
    predictor = plugin.build(options_of(plugin, told, "gru"), features, output)
    first_slot = np.full(len(task.values), task.start_us // task.period_us, np.int64)
    names = tuple(map(str, range(len(task.values))))
    values = task.values.astype(np.float32)[:, :, None]
    training = TrainingSet(features, output, values[:, : task.scored_from], first_slot, task.scored_from, names)
    stamps = [now_s()]
    predictor.fit(training, lambda *_: stamps.append(now_s()))
    # one stamp a train_epoch: spread over its gradient steps
    epochs = np.arange(len(stamps))
    steps = np.linspace(0, task.train_epochs, task.train_epochs * task.steps + 1)
    by_step = np.stack([np.interp(steps, epochs, times) for times in zip(*stamps, strict=True)], axis=1)
    whole = TrainingSet(features, output, values, first_slot, task.scored_from, names)
    answers = roll(predictor, whole, [], 0).answers[..., LEVELS.index(0.5)]
    chosen = [issue - task.scored_from for issue in task.issues]
    weights = sum(np.size(array) for array in predictor.weights().values())
    return version("netpredict"), by_step, answers[:, chosen], weights


run(work)
