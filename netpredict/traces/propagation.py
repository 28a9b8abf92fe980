"""Median level of a radio cell at a place: path loss and antenna, without shadowing.

Urban macro without line of sight, as TR 38.901 Table 7.4.1-1 has it, at 2 GHz, with sites 25 m high and UEs outdoors
1.5 m above ground, 35 m away at least (its Table 7.2-1). The path loss with line of sight, which bounds it from below
in that table, is 13 dB less or lower still. Antennas of three sectors as in TR 36.814 Table A.2.1.1-2, with the tilt of
12 degrees of ITU-R M.2135 for sites 500 m apart. 46 dBm a sector in 10 MHz, spread over 600 subcarriers. These are the
formulas of the recording ``ns3-uma`` too: its levels less these are its shadowing.
"""

import numpy as np
from numpy.typing import NDArray

from netpredict.traces.layout import BORESIGHT_RAD

Array = NDArray[np.float32]

TX_DBM_PER_RE = 18.2
CARRIER_GHZ = 2.0
SITE_HEIGHT_M, UE_HEIGHT_M = 25.0, 1.5
NEAREST_M = 35.0
GAIN_DBI, FRONT_TO_BACK_DB = 14.0, 25.0
BEAM_DEG, BEAM_HEIGHT_DEG = 70.0, 10.0
TILT_DEG, SIDE_LOBE_DB = 12.0, 20.0


def path_loss_db(distance_m: Array) -> Array:
    """Over this distance along the ground."""
    slant_m = np.hypot(np.maximum(distance_m, NEAREST_M), SITE_HEIGHT_M - UE_HEIGHT_M)
    loss_db: Array = 13.54 + 39.08 * np.log10(slant_m) + 20 * np.log10(np.float32(CARRIER_GHZ))
    return loss_db


def gain_db(dx_m: Array, dy_m: Array) -> Array:
    """Of each sector on a new last axis towards a UE that stands so far east and north of the site."""
    away_deg = np.rad2deg(np.arctan2(dy_m, dx_m)[..., None] - BORESIGHT_RAD)
    away_deg = (away_deg + 180) % 360 - 180
    down_deg = np.rad2deg(np.arctan2(SITE_HEIGHT_M - UE_HEIGHT_M, np.hypot(dx_m, dy_m)))[..., None]
    across_db = np.minimum(12 * (away_deg / BEAM_DEG) ** 2, FRONT_TO_BACK_DB)
    along_db = np.minimum(12 * ((down_deg - TILT_DEG) / BEAM_HEIGHT_DEG) ** 2, SIDE_LOBE_DB)
    gain: Array = GAIN_DBI - np.minimum(across_db + along_db, FRONT_TO_BACK_DB)
    return gain


def median_dbm(dx_m: Array, dy_m: Array) -> Array:
    """RSRP of each sector, on a new last axis, of a site so far west and south of the UE."""
    level_dbm: Array = TX_DBM_PER_RE - path_loss_db(np.hypot(dx_m, dy_m))[..., None] + gain_db(dx_m, dy_m)
    return level_dbm
