"""What an evaluation of the handover hook on known RSRP found: rows of figures, JSON as they stand."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from netpredict.evaluate.handover_compare import Change, Judged, Point


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator would be given for one aim, as scored: the rule of the hook or, where it has not won, plain A3.

    ``rule``: "cost" where ``tuned``, the prices of ours chosen on the training seed, had fewer failures there both at
    equal ping-pongs and at equal handovers, with the whole of both intervals; else "a3", which is ``plain``: the plain
    setting chosen there for the same aim, at which the hook stays in shadow and so is never late. ``beside_plain`` is
    ours less that setting; ``cost`` are the prices of ours as scored, whether taken or not. ``cost`` and ``tuned`` are
    None where plain A3 had no failure on the training seed: there was nothing to win.
    """

    aim: str
    decision_delay_ms: int
    rule: Literal["cost", "a3"]
    ours: Point
    at_equal_ping_pongs: Change
    at_equal_handovers: Change
    plain: Point
    beside_plain: Change
    cost: Judged | None
    tuned: Judged | None


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One scene. ``plain`` is the best plain setting within ``PING_PONGS``; fronts and curve are as scored.

    ``taught_price`` is what a handover costs in the targets, in failures; the curve is empty where nothing was taught.
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
