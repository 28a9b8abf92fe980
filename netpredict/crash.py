"""Named points between two durable steps, for tests that end, delay or fail the process there.

In production ``reached`` does nothing: no setting and no variable of the environment can arm a point, only code that
runs in the same process.
"""

from __future__ import annotations

from collections.abc import Callable

POINTS = (
    "after_poll",  # records are in memory only
    "after_decode",  # they are columns, their lanes have not moved
    "after_predict",  # hidden states have advanced in memory
    "before_commit",  # copies are in the writer's hands
    "mid_commit",  # forecasts are written, not committed
    "mid_snapshot",  # hidden states are written, not committed
    "end_of_commit",  # all is written, not committed
    "after_commit",  # durable, and the loop does not know it
    "on_revoke",  # Kafka takes topic partitions away, a commit may be in flight
    "mid_assign",  # the epoch is taken, nothing is read back into memory yet
    "mid_model_swap",  # the weights of the new version are loaded, it does not serve yet
    "before_publish",  # noted in the store, nothing is sent
    "after_publish",  # acknowledged by Kafka, still noted as to be published
    "before_apply",  # the guards let the firing pass
    "after_apply",  # the receiver has it, its outcome is not recorded
    "mid_artefact",  # the weights are on disk, the manifest is not
)

_armed: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Say that the process has come to one of ``POINTS``."""
    if _armed is not None:
        _armed(point)


def arm(action: Callable[[str], None] | None) -> None:
    """Let ``action`` be called with the name of each point as it is reached, on whatever thread; None disarms."""
    global _armed
    _armed = action
