"""The GRU of darts on the task: BlockRNNModel, which like ours forecasts all leads in one go."""

import logging
from importlib.metadata import version

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.models import BlockRNNModel
from darts.utils.likelihood_models.torch import QuantileRegression
from pytorch_lightning.callbacks import Callback
from sklearn.preprocessing import StandardScaler
from task import LEARNING_RATE, LEVELS, Task, now_s, run

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Stamps(Callback):
    """When each gradient step was done."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_train_start(self, *_) -> None:
        self.times.append(now_s())

    def on_train_batch_end(self, *_) -> None:
        self.times.append(now_s())


def work(task: Task):
    """Windows side by side (``stride``), scaled by each series; forecasts from the windows before the issue times."""
    start = pd.Timestamp(task.start_us, unit="us")
    times = pd.date_range(start, periods=task.values.shape[1], freq=pd.Timedelta(task.period_us, unit="us"))
    whole = [TimeSeries.from_times_and_values(times, row.astype(np.float32)) for row in task.values]
    scaler = Scaler(StandardScaler())
    training = scaler.fit_transform([series[: task.scored_from] for series in whole])
    stamps = Stamps()
    model = BlockRNNModel(
        model="GRU",
        input_chunk_length=task.lookback_steps,
        output_chunk_length=task.horizon_steps,
        hidden_dim=task.units,
        n_rnn_layers=1,
        batch_size=task.minibatch,
        n_epochs=task.train_epochs,
        likelihood=QuantileRegression(quantiles=list(LEVELS)),
        optimizer_kwargs={"lr": LEARNING_RATE},
        add_encoders={"cyclic": {"past": ["hour", "dayofweek"]}},
        random_state=task.seed,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "callbacks": [stamps],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "logger": False,
            "gradient_clip_val": 1.0,
        },
    )
    model.fit(training, stride=task.lookback_steps)
    forecasts = np.empty((len(whole), len(task.issues), task.horizon_steps))
    scaled = scaler.transform(whole)
    for place, issue in enumerate(task.issues):
        seen = [series[: issue + 1] for series in scaled]
        said = model.predict(task.horizon_steps, series=seen, predict_likelihood_parameters=True, verbose=False)
        middle = [one.values()[:, LEVELS.index(0.5)] for one in said]
        back = scaler.inverse_transform([TimeSeries.from_values(row) for row in middle])
        forecasts[:, place] = np.stack([one.values()[:, 0] for one in back])
    weights = sum(parameter.numel() for parameter in model.model.parameters())
    return version("darts"), stamps.times, forecasts, weights


run(work)
