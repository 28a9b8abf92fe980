"""What every system is given and how it is scored; imports nothing but numpy, for it runs in two environments.

The same values, the same number of units, the same levels and learning rate. A window is ``lookback_steps`` of one
series. A train_epoch passes every step of the training part through the network once with its gradient: so many windows
as fit into it side by side, in minibatches of ``minibatch`` windows. Hour and weekday are known to all.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEVELS = (0.1, 0.5, 0.9)
LEARNING_RATE = 0.003


@dataclass(frozen=True)
class Task:
    """``values`` (S, T), all finite; steps at or after ``scored_from`` are held out. ``issues`` are steps in there."""

    values: np.ndarray
    start_us: int
    period_us: int
    scored_from: int
    horizon_steps: int
    lookback_steps: int
    units: int
    minibatch: int
    train_epochs: int
    seed: int

    @property
    def issues(self) -> range:
        """Steps at which forecasts are issued that are scored: half a day apart, so that all can afford them."""
        return range(self.scored_from, self.values.shape[1] - self.horizon_steps, 12)

    @property
    def training(self) -> np.ndarray:
        """The part that may be learnt from."""
        return self.values[:, : self.scored_from]

    @property
    def windows(self) -> int:
        """Windows of a train_epoch."""
        return len(self.values) * (self.scored_from // self.lookback_steps)

    @property
    def steps(self) -> int:
        """Gradient steps of a train_epoch."""
        return -(-self.windows // self.minibatch)

    def save(self, path: Path) -> None:
        """One .npz, never pickled."""
        rest = {name: value for name, value in self.__dict__.items() if name != "values"}
        np.savez(path, values=self.values, rest=np.array(json.dumps(rest)))


def read(path: Path) -> Task:
    """What ``save`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Task(arrays["values"], **json.loads(str(arrays["rest"])))


def now_s() -> tuple[float, float]:
    """By the wall, and by the processor over all threads of this process, which a busy machine disturbs less."""
    return time.perf_counter(), time.process_time()


def run(work) -> None:
    """Call ``work(task) -> (version, ``now_s`` at each gradient step, forecasts (S, issues, horizon), weights)``."""
    task = read(Path(sys.argv[1]))
    version, stamps, forecasts, weights = work(task)
    issues = np.array(task.issues)
    ahead = issues[:, None] + 1 + np.arange(task.horizon_steps)
    truth = task.values[:, ahead]
    naive = task.values[:, issues][:, :, None]
    per_step = np.diff(np.asarray(stamps), axis=0)
    wall_s, processor_s = per_step[task.steps :].mean(axis=0) * task.steps
    Path(sys.argv[2]).write_text(
        json.dumps(
            {
                "version": version,
                "weights": int(weights),
                "train_epoch_s": float(wall_s),
                "train_epoch_processor_s": float(processor_s),
                "training_processor_s": float(per_step[:, 1].sum()),
                "gradient_steps": len(per_step),
                "mae": float(np.abs(truth - forecasts).mean()),
                "naive_mae": float(np.abs(truth - naive).mean()),
            }
        )
    )
