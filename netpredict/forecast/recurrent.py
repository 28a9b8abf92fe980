"""The shared base of the recurrent predictors: explicit hidden state in, explicit hidden state out, one compiled call.

Imported by the recurrent plugins only, because it brings TensorFlow with it (seconds, and half a GiB).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netpredict.errors import ConfigError
from netpredict.forecast import bptt
from netpredict.forecast.backend import tf
from netpredict.forecast.ensemble import Ensemble
from netpredict.forecast.network import Network
from netpredict.forecast.options import RecurrentOptions, check_options
from netpredict.types import (
    FeatureSpec,
    FloatArray,
    Hidden,
    Outputs,
    OutputSpec,
    Progress,
    StateArray,
    TrainingReport,
    TrainingSet,
    base_name,
)

__all__ = ["RecurrentOptions", "RecurrentPredictor", "check_specs"]


class RecurrentPredictor:
    """A stack of LSTM, GRU or SimpleRNN layers over any number of series that share its weights.

    Untrained it answers the last value with an even spread. Rows are bit-equal whatever else is in the batch as long as
    the caller pads n to a multiple of 16.
    """

    api_version = 1
    padded = True
    network: type[Network] = Network

    def __init__(self, layer: str, options: RecurrentOptions, features: FeatureSpec, output: OutputSpec) -> None:
        check_specs(features, output)
        check_options(options, output)
        self.layer, self.options, self._features, self._output = layer, options, features, output
        self._columns = seen_columns(options.leave_out, features, output)
        self._seen = replace(features, observed=tuple(features.observed[column] for column in self._columns))
        self._network = self._built()
        self._shapes = {"rnn": self._network.rnn_shape, **self._network.encoder.state_shapes}
        self._step = self._compiled()

    def _built(self) -> Network | Ensemble:
        if self.options.ensemble == 1:
            return self.network(self.layer, self.options, self._seen, self._output)
        return Ensemble(self.network, self.layer, self.options, self._seen, self._output)

    def _compiled(self) -> Any:
        """One graph for every batch size: the leading axis is open, the rest is fixed; no XLA (it is not bit-equal)."""
        hidden = {name: tf.TensorSpec((None, *shape)) for name, shape in self._shapes.items()}
        signature = [tf.TensorSpec((None, self._features.width)), hidden]
        kept = [*self._columns, *range(len(self._features.observed), self._features.width)]

        def step(features: Any, hidden: Any) -> Any:
            scaler = {name: array for name, array in hidden.items() if name != "rnn"}
            with tf.device("CPU:0"):
                features = features if self._seen == self._features else tf.gather(features, kept, axis=1)
                answer, rnn, scaler = self._network.step(features, hidden["rnn"], scaler)
            return answer, {"rnn": rnn, **scaler}

        compiled = tf.function(step, input_signature=signature, autograph=False, jit_compile=False)
        return compiled.get_concrete_function()

    def state_spec(self) -> Mapping[str, StateArray]:
        """``rnn``: h (and c) of each layer; ``scaler``: last value, mean, deviation and count of each column.

        With ``ensemble`` the rows of ``rnn`` stand member behind member; the other arrays are there once. With
        ``loss = "cross_entropy"`` also ``recent``, ``stay`` and ``frequency`` of the classes, see ``lags.py``.
        """
        return {name: StateArray(shape) for name, shape in self._shapes.items()}

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels as configured."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """(n, f), {name: (n, …)} -> {kpi: float32 (n, horizon, m)} in natural units, new hidden."""
        given = {name: tf.convert_to_tensor(hidden[name], tf.float32) for name in self._shapes}
        quantiles, after = self._step(tf.convert_to_tensor(features, tf.float32), given)
        by_kpi = np.asarray(quantiles)
        outputs = {kpi: by_kpi[:, index] for index, kpi in enumerate(self._output.kpis)}
        return outputs, {name: np.asarray(array) for name, array in after.items()}

    def fit(self, dataset: TrainingSet, progress: Progress | None = None) -> TrainingReport:
        """Train from scratch on the part before ``validation_from``, validate on the rest; seeded."""
        if dataset.features != self._features or dataset.output != self._output:
            raise ConfigError("the training set has other columns or outputs than this predictor was built for")
        self._network = self._built()
        self._step = self._compiled()
        dataset = replace(dataset, features=self._seen, values=dataset.values[:, :, self._columns])
        if isinstance(self._network, Ensemble):
            return self._network.fit(dataset, progress)
        return bptt.fit(self._network, self.options, dataset, progress)

    def weights(self) -> Mapping[str, Any]:
        """Name -> numpy array: rnn_cells, norms, head (of each member) and the scaler's prior."""
        return self._network.values()

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take weights of the same spec; raises ArtefactError when names, shapes or dtypes differ."""
        self._network.assign(weights)


def seen_columns(leave_out: Sequence[str], features: FeatureSpec, output: OutputSpec) -> list[int]:
    """Indices of the observed columns that are not left out, on a grid at every place; ConfigError for a wrong name."""
    named = {base_name(column) for column in features.observed}
    if unknown := [name for name in leave_out if name not in named]:
        raise ConfigError(f"leave_out: no column is named {', '.join(unknown)}; there are {', '.join(sorted(named))}")
    if forecast := [kpi for kpi in map(base_name, output.kpis) if kpi in leave_out]:
        raise ConfigError(f"leave_out: {forecast[0]} is forecast, so it must be seen")
    return [index for index, column in enumerate(features.observed) if base_name(column) not in leave_out]


def check_specs(features: FeatureSpec, output: OutputSpec) -> None:
    """Refuse what the network cannot answer, before any graph is built."""
    if output.kind != "quantiles":
        raise ConfigError(f"recurrent predictors answer quantiles, not {output.kind!r}")
    if missing := [kpi for kpi in output.kpis if kpi not in features.observed]:
        raise ConfigError(f"forecast KPIs {missing} are not among the observed columns {list(features.observed)}")
    levels = list(output.levels)
    if not output.kpis or output.horizon_steps < 1 or not levels:
        raise ConfigError("a recurrent predictor needs a KPI, a horizon of at least one step and a level")
    if levels != sorted(set(levels)) or not 0.0 < levels[0] <= levels[-1] < 1.0:
        raise ConfigError(f"levels must rise strictly inside 0 and 1, not {levels}")
