"""When a forecast passes a level: the first lead at which each of its quantiles does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Crossing:
    """Leads in steps, 0 where the last value is beyond already, None where it is not reached within the horizon.

    ``earliest`` is the first lead of the highest quantile, ``middle`` of the point forecast, ``latest`` of the lowest:
    with the levels 0.1 and 0.9 the crossing lies in between four times in five at any one lead.
    """

    earliest: int
    middle: int | None
    latest: int | None

    @property
    def rank(self) -> tuple[float, int, float]:
        """Soonest first: by the point forecast, then by the two ends."""
        never = np.inf
        return (
            never if self.middle is None else self.middle,
            self.earliest,
            never if self.latest is None else self.latest,
        )


def crossing(
    values: Sequence[Sequence[float | None]], levels: Sequence[float], last: float | None, above: float
) -> Crossing | None:
    """Of forecasts (horizon, levels), None = missing; None where not even the highest quantile passes ``above``."""
    forecast = np.array(values, np.float64).reshape(-1, len(levels))
    if last is not None and last > above:
        return Crossing(0, 0, 0)
    middle = int(np.argmin(np.abs(np.asarray(levels) - 0.5)))
    earliest, point, latest = (_first(forecast[:, place], above) for place in (-1, middle, 0))
    return None if earliest is None else Crossing(earliest, point, latest)


def _first(forecast: np.ndarray[tuple[int], np.dtype[np.float64]], above: float) -> int | None:
    passed = np.flatnonzero(forecast > above)
    return int(passed[0]) + 1 if len(passed) else None
