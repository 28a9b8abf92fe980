"""Channel state of the simulated UEs: CQI, rank, BLER and MCS from the SINR of the serving radio cell."""

import numpy as np
from numpy.typing import NDArray

from netpredict.radio.tables import NO_MCS, cqi_efficiency, cqi_to_mcs

Array = NDArray[np.float64]

CQI_TABLE = 1
SHANNON_SHARE = 0.75
MCS_OF_CQI = np.where(cqi_to_mcs(CQI_TABLE) == NO_MCS, np.nan, cqi_to_mcs(CQI_TABLE))
RANK_SINR_DB = np.array([6.0, 15.0, 22.0])
FADING_DB = 2.0
BLER_SLOPE_PER_DB = 1.2
BACK_OFF_DB = 1.0  # what outer-loop link adaptation would keep in hand


def needed_sinr_db(efficiency_bps_hz: Array) -> Array:
    """Least SINR at which blocks of such an efficiency are lost no more often than one in ten, dB."""
    least: Array = 10 * np.log10(2 ** (efficiency_bps_hz / SHANNON_SHARE) - 1)
    return least


def block_error_ratio(margin_db: Array) -> Array:
    """Share of the blocks that are lost so far above (below) the SINR they need: 0.1 at 0 dB."""
    lost: Array = 1 / (1 + 9 * np.exp(BLER_SLOPE_PER_DB * margin_db))
    return lost


CQI_SINR_DB = needed_sinr_db(cqi_efficiency(CQI_TABLE)[1:])


class ChannelState:
    """Link state of all UEs; the MCS in use follows the CQI of the report before, so a falling SINR raises the BLER."""

    def __init__(self, rng: np.random.Generator, speed_ms: NDArray[np.floating]) -> None:
        self.rng = rng
        self.fading_hz = 0.1 + speed_ms / 10
        self.fading_db = rng.normal(0, FADING_DB, len(speed_ms))
        self.max_rank = rng.choice(np.array([2, 4]), len(speed_ms))
        self.cqi_in_use: NDArray[np.intp] | None = None

    def advance(self, sinr_db: NDArray[np.floating], seconds: float) -> Array:
        """KPIs after ``seconds``, [ue, CHANNEL_STATE_KPIS of the wire]; NaN = no MCS while the CQI is 0."""
        rho = np.exp(-self.fading_hz * seconds)
        fresh_db = self.rng.normal(0, FADING_DB, len(rho))
        self.fading_db = rho * self.fading_db + np.sqrt(1 - rho**2) * fresh_db
        seen_db = np.clip(sinr_db + self.fading_db, -23, 40)
        cqi = np.searchsorted(CQI_SINR_DB, seen_db, side="right")
        in_use = cqi if self.cqi_in_use is None else self.cqi_in_use
        margin_db = seen_db + BACK_OFF_DB - CQI_SINR_DB[np.maximum(in_use, 1) - 1]
        bler_ratio = block_error_ratio(margin_db)
        rank = np.minimum(1 + np.searchsorted(RANK_SINR_DB, seen_db + self.rng.normal(0, 1, len(rho))), self.max_rank)
        self.cqi_in_use = cqi
        return np.stack([cqi, np.round(seen_db, 1), rank, np.round(bler_ratio, 4), MCS_OF_CQI[in_use]], axis=1)
