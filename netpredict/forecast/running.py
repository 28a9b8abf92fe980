"""The wrapper of a predictor version: gathers and scatters hidden states, pads, counts and survives failures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import structlog

from netpredict.errors import PluginError
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.series import SeriesTable
from netpredict.types import AnyArray, BoolArray, FloatArray, Hidden, StateArray

LOG = structlog.get_logger(__name__)
ROWS_MAX = 8192
"""Most rows of one call."""
PAD_ROWS = 16
"""Calls are padded to this times a power of two: a row's answer is then the same in every batch."""
STEPS = "steps"
"""The column beside the hidden state, which therefore has no array of this name."""
STEPS_MAX = 65_535


class Answer(NamedTuple):
    """What a version said of n rows: values float32 (n, kpis, horizon, levels), NaN where it ``failed`` (n,)."""

    values: FloatArray
    failed: BoolArray


class RunningPredictor:
    """One version of a predictor on one stream. Its columns in the SeriesTable are named ``name@version.``…"""

    def __init__(self, name: str, version: str, model_id: int, predictor: Predictor) -> None:
        self.name = name
        self.version = version
        self.model_id = model_id
        self.predictor = predictor
        self.prefix = f"{name}@{version}."
        self.output = predictor.output_spec()
        self._names = sorted(predictor.state_spec())
        if STEPS in self._names:
            raise PluginError(f"predictor {name!r}: its hidden state may not be called {STEPS!r}; give it another name")
        self.failures = 0

    def columns(self) -> dict[str, StateArray]:
        """What the SeriesTable must hold for it."""
        spec = {self.prefix + name: array for name, array in self.predictor.state_spec().items()}
        return {**spec, self.prefix + STEPS: StateArray((), "uint16")}

    def steps(self, table: SeriesTable, rows: AnyArray) -> AnyArray:
        """Steps seen since the cold start of each row, uint16 (n,), saturating."""
        return table.column(self.prefix + STEPS)[rows]

    def advance(self, table: SeriesTable, rows: AnyArray, features: FloatArray) -> Answer:
        """Advance unique rows by one step.

        A row for which the predictor raises, or whose hidden state comes out not finite, is set back to a cold start,
        so that it cannot stay poisoned. What becomes of a row never depends on the others.
        """
        shape = (len(rows), len(self.output.kpis), self.output.horizon_steps, len(self.output.levels))
        answer = Answer(np.empty(shape, np.float32), np.zeros(len(rows), bool))
        cold = np.zeros(len(rows), bool)
        errors: list[str] = []
        for start in range(0, len(rows), ROWS_MAX):
            self._advance_part(
                table, rows, features, answer, cold, slice(start, min(start + ROWS_MAX, len(rows))), errors
            )
        steps = table.column(self.prefix + STEPS)
        steps[rows] = np.minimum(steps[rows].astype(np.int32) + 1, STEPS_MAX)
        if cold.any():
            table.reset(rows[cold], self.columns())
        if errors:
            self.failures += len(errors)
            LOG.error(
                "predictor_failed", predictor=self.name, version=self.version, series=len(errors), error=errors[0][:500]
            )
        elif cold.any():
            LOG.warning("hidden_state_reset", predictor=self.name, version=self.version, series=int(cold.sum()))
        return answer

    def _advance_part(
        self,
        table: SeriesTable,
        rows: AnyArray,
        features: FloatArray,
        answer: Answer,
        cold: BoolArray,
        part: slice,
        errors: list[str],
    ) -> None:
        n = part.stop - part.start
        try:
            hidden = self._called(table, rows[part], features[part], answer.values[part])
        except MemoryError:
            raise
        except Exception as error:  # a plugin may raise anything: halve until the rows to blame are alone
            if n == 1:
                errors.append(str(error))
                answer.values[part], answer.failed[part], cold[part] = np.nan, True, True
                return
            middle = part.start + n // 2
            for half in (slice(part.start, middle), slice(middle, part.stop)):
                self._advance_part(table, rows, features, answer, cold, half, errors)
            return
        table.scatter(self.prefix, rows[part], hidden)
        for array in hidden.values():
            if np.issubdtype(array.dtype, np.floating):
                cold[part] |= ~np.isfinite(array.reshape(n, -1)).all(axis=1)

    def _called(self, table: SeriesTable, rows: AnyArray, features: FloatArray, answer: FloatArray) -> Hidden:
        """One call: fills ``answer``, gives the new hidden of n rows; raises when a shape is not as declared."""
        n = len(rows)
        if self.predictor.padded:
            size = PAD_ROWS << max(0, (n - 1) // PAD_ROWS).bit_length()
            rows = np.concatenate([rows, np.repeat(rows[:1], size - n)])
            features = np.concatenate([features, np.repeat(features[:1], size - n, axis=0)])
        features.setflags(write=False)
        before = table.gather(self.prefix, self._names, rows)
        outputs, hidden = self.predictor.advance(features, before)
        for index, kpi in enumerate(self.output.kpis):
            values = outputs[kpi]
            if values.shape != (len(rows), *answer.shape[2:]):
                raise PluginError(f"the answer for {kpi} has shape {values.shape}")
            answer[:, index] = values[:n]
        after = {name: np.asarray(hidden[name]) for name in self._names}
        for name, array in after.items():
            if array.shape != before[name].shape:
                raise PluginError(f"hidden {name} has shape {array.shape} in place of {before[name].shape}")
        return {name: array[:n] for name, array in after.items()}
