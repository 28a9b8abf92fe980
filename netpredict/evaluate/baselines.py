"""Plain forecasts that a predictor is judged against; each uses only what is known when the forecast is issued.

All take values (series, steps) with NaN = missing and give the answer of every step for one lead, (series, steps).
EWMA and rolling median are tuned for each lead on the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from netpredict.types import AnyArray, FloatArray

ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
WINDOWS = (3, 5, 7, 9, 11, 15, 21, 31, 61)

Answer = Callable[[int], FloatArray]
"""Lead -> (series, steps)."""


def answers(
    training: FloatArray, values: FloatArray, seasons: Mapping[str, int], leads: Iterable[int]
) -> dict[str, Answer]:
    """The baselines by name over ``values``; those of a season (its steps, by name) stand under that name."""
    wanted = tuple(leads)
    named: dict[str, Answer] = {"naive": _same(filled(values))}
    named |= {name: _seasonal(values, steps) for name, steps in seasons.items()}
    named["ewma"] = _tuned(training, values, {alpha: ewma(alpha) for alpha in ALPHAS}, wanted)
    named["rolling_median"] = _tuned(training, values, {steps: rolling_median(steps) for steps in WINDOWS}, wanted)
    return named


def filled(values: FloatArray) -> FloatArray:
    """The last value seen; NaN before the first."""
    steps = np.where(np.isfinite(values), np.arange(values.shape[1]), -1)
    last = np.maximum.accumulate(steps, axis=1)
    found = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, found, np.nan).astype(np.float32)


def ewma(alpha: float) -> Callable[[FloatArray], FloatArray]:
    """Exponentially weighted mean; a missing value leaves it as it was."""

    def over(values: FloatArray) -> FloatArray:
        means = np.full(values.shape, np.nan, np.float32)
        mean = np.full(len(values), np.nan)
        for step in range(values.shape[1]):
            value = values[:, step]
            started = np.where(np.isnan(mean), value, mean + alpha * (value - mean))
            mean = np.where(np.isfinite(value), started, mean)
            means[:, step] = mean
        return means

    return over


def rolling_median(window: int) -> Callable[[FloatArray], FloatArray]:
    """Median of the last ``window`` steps, gaps filled with the last value."""

    def over(values: FloatArray) -> FloatArray:
        known = filled(values)
        first = np.where(np.isfinite(known).any(axis=1), np.isfinite(known).argmax(axis=1), 0)
        begin = known[np.arange(len(known)), first][:, None]
        padded = np.concatenate([np.repeat(begin, window - 1, axis=1), np.where(np.isnan(known), begin, known)], axis=1)
        medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=1), axis=2)
        return np.where(np.isnan(known), np.nan, medians).astype(np.float32)

    return over


def at_lead(values: FloatArray, lead: int) -> FloatArray:
    """What the series turns out to be ``lead`` steps after each step; NaN beyond its end."""
    later = np.full(values.shape, np.nan, np.float32)
    later[:, :-lead] = values[:, lead:]
    return later


def _same(answer: FloatArray) -> Answer:
    return lambda lead: answer


def _seasonal(values: FloatArray, season: int) -> Answer:
    """The value a whole number of seasons before the target, the last one known at issue."""
    known = filled(values)

    def at(lead: int) -> FloatArray:
        back = -(-lead // season) * season - lead
        answer = np.full(values.shape, np.nan, np.float32)
        answer[:, back:] = known[:, : values.shape[1] - back]
        return answer

    return at


def _tuned(
    training: FloatArray,
    values: FloatArray,
    choices: Mapping[float, Callable[[FloatArray], FloatArray]],
    leads: tuple[int, ...],
) -> Answer:
    tried = {name: over(training) for name, over in choices.items()}
    chosen = {lead: min(choices, key=lambda name: _error(training, tried[name], lead)) for lead in leads}
    found = {name: choices[name](values) for name in set(chosen.values())}
    return lambda lead: found[chosen[lead]]


def _error(training: FloatArray, answer: FloatArray, lead: int) -> float:
    error: AnyArray = np.abs(at_lead(training, lead) - answer)
    known = error[np.isfinite(error)]
    return float(known.mean()) if known.size else np.inf
