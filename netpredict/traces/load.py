"""Load of the simulated radio cells: daily and weekly cycles, correlated noise, bursts, saturation."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DAY_S = 86_400
WEEK_S = 7 * DAY_S
MONDAY_S = 4 * DAY_S  # 1970-01-05 was a Monday
BANDWIDTH_KHZ = 273 * 12 * 30 * 0.75 * 0.86  # 100 MHz carrier, its share of downlink time, less overhead
MEAN_EFFICIENCY = 3.0  # bit/s/Hz over all layers
UL_CAPACITY_RATIO = 0.16
UL_DEMAND_RATIO = 0.07
NOISE_SIGMA, NOISE_S = 0.22, 1200.0
EFFICIENCY_SIGMA, EFFICIENCY_S = 0.08, 900.0
BURSTS_PER_DAY, BURST_S = 2.0, 400.0
UES_AT_REFERENCE = 150.0
MAX_UES = 400


class TrafficLoad:
    """Advances all radio cells together, one period a call; ``load_ratio`` is the share of PRBs in use just now.

    ``demand_ratio`` is the share that would be in use if there were PRBs for all demand: it may pass 1.
    """

    def __init__(self, rng: np.random.Generator, radio_cells: int, period_s: float) -> None:
        self.rng = rng
        self.period_s = period_s
        self.peak_ratio = np.clip(rng.lognormal(np.log(0.5), 0.45, radio_cells), 0.05, 1.8)
        self.office_ratio = rng.beta(0.8, 0.8, radio_cells)
        self.phase_s = rng.normal(0.0, 2400.0, radio_cells)
        self.efficiency = np.clip(rng.normal(MEAN_EFFICIENCY, 0.6, radio_cells), 1.5, 5.0)
        self.noise = rng.normal(0.0, NOISE_SIGMA, (2, radio_cells))
        self.fade = rng.normal(0.0, EFFICIENCY_SIGMA, radio_cells)
        self.burst = np.zeros(radio_cells)
        self.load_ratio = np.full(radio_cells, 0.3)
        self.demand_ratio = self.load_ratio

    def advance(self, unix_s: float) -> Array:
        """KPIs of the period that begins at ``unix_s``, [radio cells, TRAFFIC_KPIS of the wire]."""
        self._advance_noise()
        cycle = (1 - self.office_ratio) * home_cycle(unix_s - self.phase_s)
        cycle += self.office_ratio * office_cycle(unix_s - self.phase_s)
        reference_kbps = BANDWIDTH_KHZ * MEAN_EFFICIENCY
        demand = self.peak_ratio * cycle * np.exp(self.noise[0]) + self.burst
        capacity_kbps = BANDWIDTH_KHZ * self.efficiency * np.exp(self.fade) * (1 - 0.15 * self.load_ratio)
        dl_kbps, dl_percent = _serve(demand * reference_kbps, capacity_kbps)
        ul_demand_kbps = demand * np.exp(self.noise[1]) * reference_kbps * UL_DEMAND_RATIO
        ul_kbps, ul_percent = _serve(ul_demand_kbps, capacity_kbps * UL_CAPACITY_RATIO)
        ues = np.minimum(self.rng.poisson(2 + UES_AT_REFERENCE * demand), MAX_UES)
        self.load_ratio, self.demand_ratio = dl_percent / 100, demand * reference_kbps / capacity_kbps
        values = np.stack([dl_kbps, ul_kbps, dl_percent, ul_percent, ues], axis=1)
        return np.round(values, 1)

    def _advance_noise(self) -> None:
        radio_cells = len(self.burst)
        self.noise = _autoregress(self.rng, self.noise, NOISE_SIGMA, self.period_s / NOISE_S)
        self.fade = _autoregress(self.rng, self.fade, EFFICIENCY_SIGMA, self.period_s / EFFICIENCY_S)
        begun = self.rng.random(radio_cells) < BURSTS_PER_DAY * self.period_s / DAY_S
        self.burst *= np.exp(-self.period_s / BURST_S)
        self.burst += begun * self.rng.exponential(0.35, radio_cells)


def home_cycle(unix_s: Array) -> Array:
    """Demand of a residential area relative to its evening peak; weekends run a little higher by day."""
    hour = unix_s % DAY_S / 3600
    day = 0.12 + 0.88 * _hump(hour, 20.0, 4.5) + 0.35 * _hump(hour, 12.0, 3.5)
    return np.where(_is_weekend(unix_s), 1.1 * day + 0.08 * _hump(hour, 14.0, 4.0), day)


def office_cycle(unix_s: Array) -> Array:
    """Demand of a business area relative to its midday peak; weekends are quiet."""
    hour = unix_s % DAY_S / 3600
    day = 0.08 + 0.75 * _hump(hour, 10.5, 2.5) + 0.8 * _hump(hour, 15.0, 2.8)
    return np.where(_is_weekend(unix_s), 0.08 + 0.3 * (day - 0.08), day)


def _is_weekend(unix_s: Array) -> NDArray[np.bool_]:
    return (unix_s - MONDAY_S) % WEEK_S >= 5 * DAY_S


def _hump(hour: Array, peak_hour: float, width_hours: float) -> Array:
    distance = (hour - peak_hour + 12) % 24 - 12  # across midnight
    hump: Array = np.exp(-0.5 * (distance / width_hours) ** 2)
    return hump


def _serve(demand_kbps: Array, capacity_kbps: Array) -> tuple[Array, Array]:
    served_kbps: Array = np.minimum(demand_kbps, capacity_kbps)
    return served_kbps, 100 * served_kbps / capacity_kbps


def _autoregress(rng: np.random.Generator, values: Array, sigma: float, periods: float) -> Array:
    rho = float(np.exp(-periods))
    moved: Array = rho * values + np.sqrt(1 - rho**2) * rng.normal(0.0, sigma, values.shape)
    return moved
