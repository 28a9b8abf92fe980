"""Moving UEs of the simulator: paths, RSRP of the radio cells around them, and who serves them.

Mobility: constant speed, one of those of TR 36.839 or at rest, within a disc; at its rim a UE turns inwards, at a
random angle to the way to the middle. Half of the UEs go straight on, the others turn by 90 degrees every 200 m on
average.

Shadowing: lognormal, 6 dB (TR 38.901 Table 7.4.1-1, UMa without line of sight), around the median of ``propagation``.
Along the way of a UE it is correlated by exp(-way / 50 m), a first-order Markov process (Gudmundson 1991, "Correlation
model for shadow fading in mobile radio systems"; the 50 m are those of TR 38.901 Table 7.5-6). It belongs to the pair
of UE and site: sectors of a site share it, sites are independent as in TR 38.901 clause 7.5. (TR 36.814 has a
correlation of 0.5 between sites: neighbours then rise and fall together, and plain A3 with 3 dB and 480 ms fails 0.5
instead of 1.2 times in a UE-minute at 60 km/h.) It does not depend on the place, so that nothing can be learnt from a
map. There is neither line of sight nor fast fading; ``channel`` adds some of the latter to the channel state.

Measurement: an L1 measurement is the mean of five samples with an error of 1 dB each. SINR = S / (N + load x all other
radio cells). Where it is reported of every radio cell, S is the measured RSRP: SS-SINR is measured on the resource
elements of SS-RSRP (TS 38.215 clause 5.1.5), so that both have the same error; what interferes is taken as it is.
Handover by plain A3, at measurements.
``netpredict evaluate radio`` sets all this beside a recording of ns-3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netpredict.traces.layout import SECTORS, Layout
from netpredict.traces.propagation import median_dbm

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

SPEED_KMH = np.array([0.0, 3.0, 30.0, 60.0, 120.0], dtype=np.float32)
SPEED_SHARE = (0.2, 0.35, 0.2, 0.2, 0.05)
MEAN_BLOCK_M = 200.0  # between turns
INWARDS_RAD = np.deg2rad(80.0)  # from the way to the middle, at most
STRONGEST_DBM = -51.8  # minimum coupling loss of 70 dB, that of a wide area base station
SHADOW_DB, SHADOW_M = 6.0, 50.0
NOISE_DBM_PER_RE = -123.0  # -174 dBm/Hz in 15 kHz, noise figure 9 dB: -123.2
MEASUREMENT_DB = 5**-0.5
NEAREST_SITES = 19
A3_OFFSET_DB = 3.0
TIME_TO_TRIGGER_S = 0.48
NEIGHBOURS, NEIGHBOURS_MAX = 4, 8
"""In a report; the most is maxCellReport of TS 38.331."""
LEAST_RSRP_DBM = -140.0
SINR_DB = (-23.0, 40.0)
"""Bounds of what is reported (TS 38.133, SS-SINR)."""


@dataclass(frozen=True, slots=True)
class Reports:
    """One report of every UE. ``radio_cell`` [ue, 1 + neighbours] holds the serving radio cell first, then the
    strongest others; ``rsrp_dbm`` and ``rsrq_db`` alike, rounded to 0.1; below ``LEAST_RSRP_DBM`` a neighbour was not
    heard. ``sinr_db`` [ue] is that of the serving radio cell, without error; ``measured_sinr_db`` [ue, 1 + neighbours]
    that of every radio cell as it is measured, where it was asked for.
    """

    radio_cell: Indices
    rsrp_dbm: NDArray[np.float64]
    rsrq_db: NDArray[np.float64]
    sinr_db: NDArray[np.float64]
    measured_sinr_db: NDArray[np.float64] | None = None


class Fleet:
    """All UEs. ``move`` and ``measure`` advance the state; between them ``serving`` may be read and set.

    UEs drive at ``speeds_kmh`` in turn, without any at those of TR 36.839 by chance; nothing else is drawn otherwise.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        layout: Layout,
        ues: int,
        *,
        neighbours: int = NEIGHBOURS,
        neighbour_sinr: bool = False,
        speeds_kmh: Sequence[float] = (),
    ) -> None:
        self.rng = rng
        self.layout = layout
        self.neighbours, self.neighbour_sinr = neighbours, neighbour_sinr
        angle, radius = rng.uniform(0, 2 * np.pi, ues), layout.radius_m * np.sqrt(rng.random(ues))
        self.xy_m = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
        self.heading_rad = rng.uniform(0, 2 * np.pi, ues).astype(np.float32)
        self.speed_ms = rng.choice(SPEED_KMH / 3.6, ues, p=SPEED_SHARE)
        if speeds_kmh:
            self.speed_ms = np.resize(np.asarray(speeds_kmh) / 3.6, ues).astype(np.float32)
        self.turns_per_m = rng.integers(2, size=ues) / MEAN_BLOCK_M
        self.odometer_m = np.zeros(ues)
        sites = len(layout.site_xy_m)
        self.site_shadow = rng.standard_normal((ues, sites), dtype=np.float32)
        self.shadow_at_m = np.zeros((ues, sites))
        self.serving = np.full(ues, -1, dtype=np.intp)
        self.target = np.full(ues, -1, dtype=np.intp)
        self.held_s = np.zeros(ues)
        self.handovers = 0
        self.a3_offset_db = A3_OFFSET_DB

    def move(self, seconds: float) -> None:
        """Drive on."""
        way_m = (self.speed_ms * seconds).astype(np.float32)
        ways = len(way_m)
        turn = self.rng.random(ways) < way_m * self.turns_per_m
        self.heading_rad += turn * self.rng.choice(np.array([-0.5, 0.5], dtype=np.float32) * np.pi, ways)
        outside = np.hypot(self.xy_m[:, 0], self.xy_m[:, 1]) > self.layout.radius_m
        inwards = np.arctan2(-self.xy_m[:, 1], -self.xy_m[:, 0]) + self.rng.uniform(-INWARDS_RAD, INWARDS_RAD, ways)
        self.heading_rad = np.where(outside, inwards, self.heading_rad).astype(np.float32)
        self.xy_m += way_m[:, None] * np.stack([np.cos(self.heading_rad), np.sin(self.heading_rad)], axis=1)
        self.odometer_m += way_m

    def measure(self, load_ratio: NDArray[np.float64], seconds: float) -> Reports:
        """Measure, hand over by the plain A3 rule (``seconds`` since the last call), and report."""
        radio_cell, true_dbm = self.levels()
        seen_dbm = true_dbm + self.rng.normal(0, MEASUREMENT_DB, true_dbm.shape).astype(np.float32)
        self._hand_over(radio_cell, seen_dbm, seconds)
        load = load_ratio[np.minimum(radio_cell, len(load_ratio) - 1)].astype(np.float32)
        power = np.exp(true_dbm * np.float32(np.log(10) / 10))
        noise = np.float32(10 ** (NOISE_DBM_PER_RE / 10))
        everything_dbm = _db(noise + ((2 + 10 * load) / 12 * power).sum(axis=1)) + 10 * np.log10(12.0)
        is_serving = radio_cell == self.serving[:, None]
        own, interference = (power * is_serving).sum(axis=1), (load * power * ~is_serving).sum(axis=1)
        order = np.argsort(np.where(is_serving, -np.inf, -seen_dbm), axis=1, kind="stable")[:, : 1 + self.neighbours]
        rsrp_dbm = np.take_along_axis(seen_dbm, order, axis=1)
        measured_sinr_db = None
        if self.neighbour_sinr:
            below_dbm = np.take_along_axis(_below_dbm(load * power, noise), order, axis=1)
            measured_sinr_db = _tenths(np.clip(rsrp_dbm - below_dbm, *SINR_DB))
        return Reports(
            np.take_along_axis(radio_cell, order, axis=1),
            _tenths(rsrp_dbm),
            _tenths(np.clip(rsrp_dbm - everything_dbm[:, None], -43, 20)),
            _tenths(np.clip(_db(own / (noise + interference)), *SINR_DB)),
            measured_sinr_db,
        )

    def levels(self) -> tuple[Indices, Array]:
        """Radio cells of the nearest sites and their true RSRP, both [ue, sites x 3]; others are too far to matter.

        Shadowing moves on by the way that was driven since the last call.
        """
        offset_m = self.xy_m[:, None, :] - self.layout.site_xy_m[None, :, :]
        square_m2 = (offset_m**2).sum(axis=2)
        count = min(NEAREST_SITES, square_m2.shape[1])
        near = np.sort(np.argpartition(square_m2, count - 1, axis=1)[:, :count], axis=1)
        dx, dy = (np.take_along_axis(offset_m[:, :, axis], near, axis=1) for axis in (0, 1))
        level_dbm = np.minimum(median_dbm(dx, dy) + self._shadow_db(near)[:, :, None], STRONGEST_DBM)
        radio_cell = (near[:, :, None] * SECTORS + np.arange(SECTORS)).reshape(len(near), -1)
        # The last site may have fewer sectors than three.
        absent = radio_cell >= self.layout.radio_cells
        return radio_cell, np.where(absent, -250.0, level_dbm.reshape(radio_cell.shape)).astype(np.float32)

    def _shadow_db(self, near: Indices) -> Array:
        """Shadowing of the sites ``near``, moved on by the way driven since each was last looked at."""
        driven_m = self.odometer_m[:, None] - np.take_along_axis(self.shadow_at_m, near, axis=1)
        rho = np.exp(-driven_m / SHADOW_M).astype(np.float32)
        fresh = self.rng.standard_normal(near.shape, dtype=np.float32)
        shadow = rho * np.take_along_axis(self.site_shadow, near, axis=1) + np.sqrt(1 - rho**2) * fresh
        np.put_along_axis(self.site_shadow, near, shadow, axis=1)
        np.put_along_axis(self.shadow_at_m, near, np.broadcast_to(self.odometer_m[:, None], near.shape), axis=1)
        return (SHADOW_DB * shadow).astype(np.float32)

    def _hand_over(self, radio_cell: Indices, seen_dbm: Array, seconds: float) -> None:
        is_serving = radio_cell == self.serving[:, None]
        attached = is_serving.any(axis=1)
        serving_dbm = np.where(is_serving, seen_dbm, -np.inf).max(axis=1)
        other_dbm = np.where(is_serving, -np.inf, seen_dbm)
        best = np.take_along_axis(radio_cell, other_dbm.argmax(axis=1)[:, None], axis=1)[:, 0]
        better = other_dbm.max(axis=1) > serving_dbm + self.a3_offset_db
        self.held_s = np.where(better & (best == self.target), self.held_s + seconds, 0.0)
        self.target = np.where(better, best, -1)
        due = attached & better & (self.held_s >= TIME_TO_TRIGGER_S)
        self.handovers += int(due.sum())
        self.serving = np.where(due | ~attached, best, self.serving)
        self.target = np.where(due | ~attached, -1, self.target)


def _below_dbm(sent_mw: Array, noise_mw: np.float32) -> Array:
    """Noise and all other radio cells below each, [ue, radio cells]."""
    # As float64: what a strong radio cell leaves of the sum is small.
    others_mw = sent_mw.sum(axis=1, dtype=np.float64, keepdims=True) - sent_mw
    return _db(noise_mw + others_mw)


def _tenths(values: Array) -> NDArray[np.float64]:
    # Rounded as float64, else 0.1 would reach JSON with the noise of float32.
    return np.asarray(np.round(values.astype(np.float64), 1), dtype=np.float64)


def _db(power: Array) -> Array:
    level: Array = 10 * np.log10(power)
    return level
