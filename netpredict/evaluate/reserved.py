"""The bandwidth hook as it runs live, on what is to be provided at one lead: what stays set, and how often it acts."""

from __future__ import annotations

import numpy as np

from netpredict import plugins
from netpredict.radio.policy import cost_quantile
from netpredict.types import AnyArray, HookBatch, SeriesKey, Source

KPI = "prb_use_dl_percent"
EXACT = {"headroom_percent": 0.0, "step_percent": 1, "deadband_percent": 0.0, "min_stay_slots": 0, "lead_steps": 1}
"""No more than the costs ask for: the quantile, rounded up to a whole percent of the resource blocks."""


def reserved(percent: AnyArray, c_under: float, period_us: int) -> tuple[AnyArray, int]:
    """Demand at the quantile of the costs, percent (series, steps) -> ``rRMPolicyMinRatio`` that stands then, actions.

    The hook's ``decide`` is called step by step with all series.
    """
    plugin = plugins.load("hooks", "bandwidth")
    options = {**EXACT, "c_under": c_under, "c_over": 1.0}
    hook = plugin.build(plugins.options_of(plugin, options, "evaluate bandwidth"))
    series, steps = percent.shape
    state = {name: np.full(series, array.fill, array.dtype) for name, array in hook.state_spec().items()}
    standing, actions = np.zeros((series, steps)), 0
    keys = [SeriesKey((f"series-{row}",)) for row in range(series)]
    now = np.zeros(series)
    for step in range(steps):
        due, state = hook.decide(_batch(percent[:, step], c_under, step, period_us, keys), state)
        for action in due:
            now[action.row] = action.value["rRMPolicyMinRatio"]
        actions += len(due)
        standing[:, step] = now
    return standing, actions


def _batch(percent: AnyArray, c_under: float, step: int, period_us: int, keys: list[SeriesKey]) -> HookBatch:
    n = len(percent)
    slot = np.full(n, step, np.int64)
    return HookBatch(
        stream="evaluated",
        period_us=period_us,
        slot=slot,
        slot_time_us=slot * period_us,
        record=np.arange(n, dtype=np.int32),
        columns=(KPI,),
        observed=np.full((n, 1), np.nan, np.float32),
        levels=(cost_quantile(c_under, 1.0),),
        forecasts={KPI: percent.astype(np.float32)[:, None, None]},
        source=np.full(n, Source.MODEL, np.uint8),
        flags=np.zeros(n, np.uint16),
        key_of=keys.__getitem__,
    )
