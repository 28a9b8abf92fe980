"""Whether a handover pays, from what a radio link and a handover failure cost: everything in units of one failure.

The rule weighs what staying costs against what going costs, with the risks that TR 36.839 counts as failures: a command
that comes too late (T310 runs) and a target that cannot be reached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netpredict.radio.link_failure import OUT_OF_SYNC_DB

Floats = npt.NDArray[np.floating[Any]]

STAY_COST = "stay_cost"
LATE_RATIO = "command_failure_ratio"
REFUSED_RATIO = "access_failure_ratio"
RSRP = "rsrp_dbm"
KPIS = (STAY_COST, LATE_RATIO, REFUSED_RATIO)
"""What is forecast of each link; see the catalogue of KPIs."""
FIRST_DB, SYNC_SPREAD_DB = 60.0, 4.0
"""Rules of thumb: so many dB below another radio cell are one failure; how unsure a measured SINR is."""


def rules_of_thumb(rsrp_dbm: Floats, sinr_db: Floats, other_dbm: Floats) -> tuple[Floats, Floats, Floats]:
    """What a report tells of ``KPIS`` by itself; ``other_dbm`` is the RSRP of the strongest other radio cell.

    They stand where the measured value of another KPI does: as what a naive forecast repeats, and as an input.
    """
    lost = 1 / (1 + np.exp((sinr_db - OUT_OF_SYNC_DB) / SYNC_SPREAD_DB))
    return (other_dbm - rsrp_dbm) / FIRST_DB, lost, lost


def arrival_cost(stay_cost: Floats, refused_ratio: Floats) -> Floats:
    """Of being handed over to a radio cell: refused, which is one failure, or there and served by it."""
    return refused_ratio + (1 - refused_ratio) * stay_cost


def gain_of_going(stay_cost: Floats, late_ratio: Floats, arrival: Floats, handover_cost: Floats | float) -> Floats:
    """What a handover saves: staying, less a command that fails or a handover at its price and what it arrives at.

    A link that is lost already is not handed over: the command would be a failure, while the link may still come back.
    """
    return stay_cost - (late_ratio + (1 - late_ratio) * (handover_cost + arrival))
