"""The ladder: model -> seasonal -> naive -> none. Each KPI of each row takes the first rung that has an answer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from netpredict.types import BoolArray, FloatArray, Source


def climb_down(
    rungs: Iterable[tuple[Source, FloatArray | None, BoolArray | None]], shape: tuple[int, int, int, int]
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """First usable answer of each (row, KPI): float32 (n, kpis, horizon, levels) and uint8 (n, kpis) of ``Source``.

    A rung is (source, answer of that shape or None, mask (n,) of rows that may use it or None for all). An answer
    counts only when all its leads and levels are finite; where no rung answers the values are NaN, the source NONE.
    """
    values = np.full(shape, np.nan, np.float32)
    sources = np.full(shape[:2], Source.NONE, np.uint8)
    open_ = np.ones(shape[:2], bool)
    for source, answer, usable in rungs:
        if answer is None:
            continue
        fits = np.isfinite(answer).all(axis=(2, 3)) & open_
        if usable is not None:
            fits &= usable[:, None]
        if fits.all():
            return answer, np.full(shape[:2], source, np.uint8)
        values[fits] = answer[fits]
        sources[fits] = source
        open_ &= ~fits
        if not open_.any():
            break
    return values, sources
