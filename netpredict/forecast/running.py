"""The wrapper of a predictor version: gathers and scatters hidden states, pads, counts and survives failures."""

from __future__ import annotations

import numpy as np
import structlog

from netpredict.forecast.predictor import Predictor
from netpredict.forecast.series import SeriesTable
from netpredict.types import AnyArray, FloatArray, Hidden, StateArray

LOG = structlog.get_logger(__name__)
ROWS_MAX = 8192
"""Most rows of one call."""
PAD_ROWS = 16
"""Calls are padded to this times a power of two: a row's answer is then the same in every batch."""
STEPS = "steps"
STEPS_MAX = 65_535


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
        self.failures = 0

    def columns(self) -> dict[str, StateArray]:
        """What the SeriesTable must hold for it."""
        spec = {self.prefix + name: array for name, array in self.predictor.state_spec().items()}
        return {**spec, self.prefix + STEPS: StateArray((), "uint16")}

    def steps(self, table: SeriesTable, rows: AnyArray) -> AnyArray:
        """Steps seen since the cold start of each row, uint16 (n,), saturating."""
        return table.column(self.prefix + STEPS)[rows]

    def advance(self, table: SeriesTable, rows: AnyArray, features: FloatArray) -> FloatArray | None:
        """Advance unique rows by one step: float32 (n, kpis, horizon, levels), NaN where not finite; None = it failed.

        A row whose hidden state came out not finite is set back to a cold start, so that it cannot stay poisoned.
        """
        shape = (len(rows), len(self.output.kpis), self.output.horizon_steps, len(self.output.levels))
        answer = np.empty(shape, np.float32)
        for start in range(0, len(rows), ROWS_MAX):
            part = slice(start, start + ROWS_MAX)
            try:
                self._advance_part(table, rows[part], features[part], answer[part])
            except Exception as error:  # a plugin may raise anything; the ladder goes on without it
                self.failures += 1
                LOG.error("predictor_failed", predictor=self.name, version=self.version, error=str(error)[:500])
                return None
        steps = table.column(self.prefix + STEPS)
        steps[rows] = np.minimum(steps[rows].astype(np.int32) + 1, STEPS_MAX)
        return answer

    def _advance_part(self, table: SeriesTable, rows: AnyArray, features: FloatArray, answer: FloatArray) -> None:
        n = len(rows)
        if self.predictor.padded:
            size = PAD_ROWS << max(0, (n - 1) // PAD_ROWS).bit_length()
            rows = np.concatenate([rows, np.repeat(rows[:1], size - n)])
            features = np.concatenate([features, np.repeat(features[:1], size - n, axis=0)])
        outputs, hidden = self.predictor.advance(features, table.gather(self.prefix, self._names, rows))
        for index, kpi in enumerate(self.output.kpis):
            answer[:, index] = outputs[kpi][:n]
        table.scatter(self.prefix, rows[:n], {name: array[:n] for name, array in hidden.items()})
        self._reset_poisoned(table, rows[:n], hidden, n)

    def _reset_poisoned(self, table: SeriesTable, rows: AnyArray, hidden: Hidden, n: int) -> None:
        for name, array in hidden.items():
            if np.issubdtype(array.dtype, np.floating):
                bad = ~np.isfinite(array[:n].reshape(n, -1)).all(axis=1)
                if bad.any():
                    for own, spec in self.columns().items():
                        table.column(own)[rows[bad]] = spec.fill
                    LOG.warning("hidden_state_reset", predictor=self.name, array=name, series=int(bad.sum()))
