"""What an evaluation of the handover hook on the WMN-LAB drives found; JSON as it stands."""

from __future__ import annotations

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A value and the interval in which 95 % of the draws of whole runs lie."""

    value: float
    low: float
    high: float


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of a policy at one point: per minute; ``chosen`` are the settings of the folds, at the nearest limit."""

    handovers_per_min: float
    ping_pongs_per_min: float
    chosen: list[str]


class PingPongRow(msgspec.Struct, frozen=True, kw_only=True):
    """Both at the same outage. ``change`` is ping-pongs of ours over those of plain A3, less 1; below zero fewer.

    ``outage_change``: outage of ours over that of plain A3, less 1, both at ``handovers_per_min``.
    """

    linking: str
    decision_delay_ms: int
    at: str
    outage_ratio: float
    plain: Rates
    ours: Rates
    change: Span
    handovers_per_min: float
    outage_change: Span


class CurvePoint(msgspec.Struct, frozen=True):
    """One limit: outage as a share of the seconds, handovers and ping-pongs a minute."""

    outage_ratio: float
    handovers_per_min: float
    ping_pongs_per_min: float


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """Of one linking: all points of both; how much there was, and what the network did itself in the recording."""

    linking: str
    stretches: int
    minutes: float
    radio_cells_per_min: float
    settings_plain: int
    settings_ours: int
    recorded: CurvePoint
    plain: list[CurvePoint]
    ours: list[CurvePoint]


class WarningRow(msgspec.Struct, frozen=True, kw_only=True):
    """AUC of one kind of event so many seconds ahead: ``within`` them, and in ``exactly`` the last of them."""

    event: str
    ahead_s: int
    positives: int
    seconds: int
    within: Span
    exactly: Span


class AlarmPoint(msgspec.Struct, frozen=True):
    """Alarms at one bar: per event and per alarm, not per second."""

    recall: float
    precision: float
    false_alarms_per_10_min: float
    bar: float


class AlarmRow(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms of radio-link failures. ``chosen``: each fold at the bar of the other folds (``bar_for``);
    ``curve``: all folds at one bar each. ``lead_s``: median from alarm to failure.
    """

    horizon_s: int
    events: int
    chosen: AlarmPoint
    recall: Span
    precision: Span
    lead_s: float
    curve: list[AlarmPoint]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; a part that was not asked for is empty. ``options`` are those of each network of a part."""

    drives: int
    runs: int
    folds: int
    decision_delay_ms: int
    ping_pong_s: int
    ping_pongs: list[PingPongRow]
    curves: list[Curves]
    warnings: list[WarningRow]
    alarms: list[AlarmRow]
    options: dict[str, list[dict[str, object]]]
