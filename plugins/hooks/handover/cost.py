"""The rule ``cost`` of the handover hook: hand over when the forecast costs of staying exceed those of going."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.radio import handover_cost
from netpredict.types import BoolArray, HookBatch, IntArray

Floats = npt.NDArray[np.float64]


class Costs(NamedTuple):
    """Of every row, in failures: of staying on the link, P(a command fails), and of being handed over to it."""

    stay: Floats
    late: Floats
    arrival: Floats


def costs_of(batch: HookBatch, usable: BoolArray, lead_steps: int, level: int) -> Costs:
    """The forecasts of the KPIs of ``radio.handover_cost``, NaN where a row must not take part."""
    stay, late, refused = (
        np.where(usable, batch.forecasts[kpi][:, lead_steps - 1, level].astype(np.float64), np.nan)
        for kpi in handover_cost.KPIS
    )
    return Costs(stay, late, np.asarray(handover_cost.arrival_cost(stay, refused), np.float64))


def gains(costs: Costs, serving_row: IntArray, price: Floats) -> Floats:
    """Of a handover to each row, (n,), -inf where there is none to gain: to itself, or where a forecast is missing."""
    stay, late, arrival = (each[serving_row] for each in costs)
    gain = handover_cost.gain_of_going(stay, late, costs.arrival, price)
    worth: Floats = np.where((costs.arrival < arrival) & np.isfinite(gain), gain, -np.inf)
    return worth


def check_price(key: str, price: float) -> None:
    """ConfigError for what is no share of a failure."""
    if not 0 <= price <= 1:
        raise ConfigError(f"{key} = {price!r} is not allowed: use 0 to 1, in failures")
