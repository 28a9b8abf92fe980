"""What an evaluation of the handover hook on known RSRP found: rows of figures, JSON as they stand."""

from __future__ import annotations

from typing import Any

import msgspec

from netpredict.evaluate.handover_compare import Change, Point


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of prices of ours, as scored, against plain A3 at as many ping-pongs and at as many handovers."""

    aim: str
    decision_delay_ms: int
    ours: Point
    at_equal_ping_pongs: Change
    at_equal_handovers: Change


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One scene. ``plain`` is the best plain setting within ``PING_PONGS``; fronts and curve are as scored.

    ``taught_price`` is what a handover costs in the targets, in failures.
    """

    name: str
    speed_kmh: float
    ue_minutes: float
    taught_price: float
    plain: Point
    choices: list[Choice]
    front_by_ping_pongs: list[Point]
    front_by_handovers: list[Point]
    curve: list[Point]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All scenes, and what they were trained with."""

    dataset: str
    predictor: str
    options: dict[str, Any]
    rounds: int
    plain_settings: int
    scenes: list[Scene]
