"""Recorded drives under shadowing drawn anew: what else might have been measured along the same paths.

A recording holds each path once, and what befell a link there is one draw of many. Path loss and antennas are those of
``propagation``; shadowing belongs to the pair of UE and site, lognormal, 6 dB, and correlated along the way by
exp(-way / 50 m) as in ``fleet``: of the recording ``ns3-uma`` what remains without path loss and antennas is just that
(5.9 dB; a test holds draws beside it). In a scene with line of sight a smooth normal field of the place for each site,
correlated by exp(-(distance / 50 m)^2), tells where: above the quantile of TR 38.901 Table 7.4.2-1 (UMa), softly by
equation 7.6-18 of its clause 7.6.3.3; the 50 m are those of Table 7.6.3.1-2, the shape of the correlation is not. By
this share levels in dB pass from NLOS to the path loss of Table 7.4.1-1 with 4 dB of shadowing over 37 m, where the
clause mixes channel matrices (equation 7.6-19).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from netpredict.traces.fleet import SHADOW_DB, SHADOW_M
from netpredict.traces.ns3_uma import Places, Scene, strongest_only
from netpredict.traces.propagation import CARRIER_GHZ, SITE_HEIGHT_M, UE_HEIGHT_M, median_dbm, path_loss_db
from netpredict.types import FloatArray

SIGHT_SHADOW_DB, SIGHT_SHADOW_M = 4.0, 37.0
SIGHT_FIELD_M = 50.0
SURE_M, RATIO_M = 18.0, 63.0
"""Of the LOS probability: certain up to the first, falling by the second."""
WAVES = 48
"""Of which a field is made (Rahimi and Recht 2007, random Fourier features)."""
LIGHT_M_GHZ = 0.299792458


class Redrawn:
    """Draws scenes along the paths of one; ``name`` and speed are those of the recorded scene."""

    def __init__(self, scene: Scene, places: Places, line_of_sight: bool) -> None:
        self._scene, self._way_xy_m = scene, places.ue_xy_m
        offset_m = places.ue_xy_m[:, :, None] - places.site_xy_m
        dx_m, dy_m = offset_m[..., 0], offset_m[..., 1]
        self._median_dbm = median_dbm(dx_m, dy_m)
        self._step_m = np.hypot(*np.moveaxis(np.diff(places.ue_xy_m, axis=1), -1, 0))
        distance_m = np.hypot(dx_m, dy_m)
        self._sight = (sight_gain_db(distance_m), sight_quantile(distance_m)) if line_of_sight else None

    def scene(self, seed: int, backwards: bool = False) -> Scene:
        """One draw. The way back is as likely as the way there; its shadowing is drawn along it."""
        rng = np.random.default_rng([seed, self._scene.seed])
        shadow_db = SHADOW_DB * self._along_the_way(rng, SHADOW_M)
        if self._sight is not None:
            gain_db, quantile = self._sight
            share = soft_sight(self._field(rng) + quantile)
            seen_db = gain_db + SIGHT_SHADOW_DB * self._along_the_way(rng, SIGHT_SHADOW_M)
            shadow_db += share * (seen_db - shadow_db)
        level_dbm = (self._median_dbm + shadow_db[..., None]).reshape(*shadow_db.shape[:2], -1)
        level_dbm = strongest_only(level_dbm[:, ::-1] if backwards else level_dbm)
        return Scene(self._scene.name, seed, self._scene.speed_kmh, level_dbm)

    def _along_the_way(self, rng: np.random.Generator, correlation_m: float) -> FloatArray:
        """Standard normal, a first-order Markov process of the way, (UEs, steps, sites)."""
        ues, steps, sites, _ = self._median_dbm.shape
        rho = np.exp(-self._step_m.T[..., None] / correlation_m).astype(np.float32)
        values = rng.standard_normal((steps, ues, sites), dtype=np.float32)
        values[1:] *= np.sqrt(1 - rho**2)
        for step in range(1, steps):
            values[step] += rho[step - 1] * values[step - 1]
        return values.transpose(1, 0, 2)

    def _field(self, rng: np.random.Generator) -> FloatArray:
        """Standard normal, smooth in the place, one for each site: (UEs, steps, sites)."""
        ues, steps, sites, _ = self._median_dbm.shape
        field = np.empty((ues, steps, sites), np.float32)
        for site in range(sites):
            waves = rng.normal(0, np.sqrt(2) / SIGHT_FIELD_M, (2, WAVES)).astype(np.float32)
            phase = rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32)
            field[..., site] = np.cos(self._way_xy_m @ waves + phase).sum(axis=-1)
        field *= np.float32(np.sqrt(2 / WAVES))
        return field


def sight_gain_db(distance_m: FloatArray) -> FloatArray:
    """How much less is lost with line of sight, UMa, over this distance along the ground."""
    slant_m = np.hypot(distance_m, SITE_HEIGHT_M - UE_HEIGHT_M)
    break_m = 4 * (SITE_HEIGHT_M - 1) * (UE_HEIGHT_M - 1) * CARRIER_GHZ / LIGHT_M_GHZ
    near_db = 28 + 22 * np.log10(slant_m) + 20 * np.log10(CARRIER_GHZ)
    beyond_db = 9 * np.log10(break_m**2 + (SITE_HEIGHT_M - UE_HEIGHT_M) ** 2)
    far_db = 28 + 40 * np.log10(slant_m) + 20 * np.log10(CARRIER_GHZ) - beyond_db
    gain: FloatArray = path_loss_db(distance_m) - np.where(distance_m < break_m, near_db, far_db)
    return gain.astype(np.float32)


def sight_quantile(distance_m: FloatArray) -> FloatArray:
    """The normal quantile of the probability of line of sight, UMa, for UEs up to 13 m high."""
    far_m = np.maximum(distance_m, SURE_M)
    ratio = SURE_M / far_m + np.exp(-far_m / RATIO_M) * (1 - SURE_M / far_m)
    known = np.linspace(1e-6, 1 - 1e-6, 4001)
    normal = NormalDist()
    return np.interp(ratio, known, [normal.inv_cdf(each) for each in known]).astype(np.float32)


def soft_sight(field: FloatArray) -> FloatArray:
    """TR 38.901 equation 7.6-18: the share of line of sight where the field exceeds its quantile by so much."""
    wave_m = LIGHT_M_GHZ / CARRIER_GHZ
    share: FloatArray = np.float32(0.5) + np.arctan(np.float32(np.sqrt(20 / wave_m)) * field) / np.float32(np.pi)
    return share
