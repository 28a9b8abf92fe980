"""The GRU of neuralforecast on the task, in its direct form, which like ours forecasts all leads in one go."""

import logging
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import GRU
from pandas.tseries.frequencies import to_offset
from pytorch_lightning.callbacks import Callback
from task import LEARNING_RATE, LEVELS, Task, now_s, run

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
CALENDAR = ["hour_sin", "hour_cos", "day_sin", "day_cos"]


class Stamps(Callback):
    """When each gradient step was done; of the class, for the library trains with a copy."""

    times: ClassVar[list[tuple[float, float]]] = []

    def on_train_start(self, *_) -> None:
        self.times.append(now_s())

    def on_train_batch_end(self, *_) -> None:
        self.times.append(now_s())


def work(task: Task):
    """Windows drawn by the library, as many as fit side by side; forecasts from the values up to the issue times."""
    model = GRU(
        h=task.horizon_steps,
        input_size=task.lookback_steps,
        encoder_n_layers=1,
        encoder_hidden_size=task.units,
        decoder_layers=1,
        decoder_hidden_size=task.units,
        hist_exog_list=CALENDAR,
        loss=MQLoss(quantiles=list(LEVELS)),
        max_steps=task.steps * task.train_epochs,
        learning_rate=LEARNING_RATE,
        batch_size=len(task.values),
        windows_batch_size=task.minibatch,
        scaler_type="standard",
        random_seed=task.seed,
        accelerator="cpu",
        callbacks=[Stamps()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        gradient_clip_val=1.0,
    )
    frame = table(task)
    learner = NeuralForecast(models=[model], freq=to_offset(pd.Timedelta(task.period_us, unit="us")).freqstr)
    learner.fit(frame[frame["step"] < task.scored_from].drop(columns="step"))
    times = list(Stamps.times)
    forecasts = np.empty((len(task.values), len(task.issues), task.horizon_steps))
    for place, issue in enumerate(task.issues):
        seen = frame[(frame["step"] <= issue) & (frame["step"] > issue - 4 * task.lookback_steps)]
        said = learner.predict(df=seen.drop(columns="step"))
        (middle,) = [name for name in said.columns if name.endswith("median")]
        forecasts[:, place] = said[middle].to_numpy().reshape(len(task.values), -1)
    weights = sum(parameter.numel() for parameter in learner.models[0].parameters())
    return version("neuralforecast"), times, forecasts, weights


def table(task: Task) -> pd.DataFrame:
    """All series below each other."""
    series, steps = task.values.shape
    start = pd.Timestamp(task.start_us, unit="us")
    times = pd.date_range(start, periods=steps, freq=pd.Timedelta(task.period_us, unit="us"))
    hour, day = 2 * np.pi * times.hour / 24, 2 * np.pi * times.dayofweek / 7
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"{number:04d}" for number in range(series)], steps),
            "ds": np.tile(times, series),
            "y": task.values.ravel(),
            "step": np.tile(np.arange(steps), series),
            "hour_sin": np.tile(np.sin(hour), series),
            "hour_cos": np.tile(np.cos(hour), series),
            "day_sin": np.tile(np.sin(day), series),
            "day_cos": np.tile(np.cos(day), series),
        }
    )


run(work)
