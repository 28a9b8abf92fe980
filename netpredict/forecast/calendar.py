"""The calendar columns behind the observed ones; training and the live pipeline must compute the same."""

from __future__ import annotations

import numpy as np

from netpredict.types import FeatureSpec, FloatArray, IntArray

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


def calendar_columns(features: FeatureSpec, slot: IntArray, phase_us: int = 0) -> FloatArray:
    """float32 (…, 3) by ``FeatureSpec.CALENDAR`` for slots of any shape; a slot starts at slot * period + phase."""
    time_us = np.asarray(slot, dtype=np.int64) * features.period_us + phase_us
    columns = np.zeros((*time_us.shape, len(features.CALENDAR)), dtype=np.float32)
    columns[..., 0] = (time_us % _DAY_US) / _HOUR_US
    columns[..., 1] = (time_us // _DAY_US + _EPOCH_WEEKDAY) % 7
    if features.season_buckets and features.season_us:
        width_us = features.season_us / features.season_buckets
        columns[..., 2] = np.minimum((time_us % features.season_us) // width_us, features.season_buckets - 1)
    return columns
