"""Hook ``bandwidth``: reserves resource blocks for the forecast load of a radio cell (RRMPolicyRatio, TS 28.541).

It acts at the quantile at which the expected cost is least: c_under / (c_under + c_over). By the same demand it puts
capacity radio cells to sleep that this one covers, and wakes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.plugins import Plugin
from netpredict.radio.policy import RrmPolicyRatio, cost_quantile
from netpredict.radio.tables import OVERHEAD_RATIO, mcs_efficiency, n_rb, peak_bps
from netpredict.types import NO_SLOT, AnyArray, DueAction, FiringBatch, HookBatch, Quality, Source, StateArray
from netpredict_plugins.hooks.bandwidth import sleep

_PEAK_CODE_RATE = 948 / 1024  # the one that peak_bps multiplies with, TS 38.306 4.1.2
_HIGHEST_EFFICIENCY = float(np.nanmax(mcs_efficiency(4)))
_UNUSABLE = Quality.SUSPECT | Quality.APPROXIMATE
_NEVER_SET = -1

Floats = npt.NDArray[np.float64]


class BandwidthOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the bandwidth hook. Costs are relative; percentages are of the resource blocks of the radio cell."""

    demand_kpi: Literal["prb_use_dl_percent", "dl_throughput_kbps"] = "prb_use_dl_percent"
    lead_steps: int = 4
    c_under: float = 4.0
    c_over: float = 1.0
    headroom_percent: float = 5.0
    step_percent: int = 5
    deadband_percent: float = 2.0
    min_stay_slots: int = 2
    least_percent: int = 0
    most_percent: int = 100
    burst_percent: int = 100
    dedicated_ratio: float = 0.0
    bandwidth_mhz: int = 100
    scs_khz: int = 30
    frequency_range: Literal["FR1", "FR2"] = "FR1"
    layers: int = 4
    efficiency_bps_hz: float = 2.4063
    object_template: str = "NRCellDU={radio_cell_id},RRMPolicyRatio=1"
    valid_for_s: float = 0.0
    capacity_cells: dict[str, tuple[str, ...]] = {}
    sleep_below_percent: float = 20.0
    wake_above_percent: float = 50.0
    sleep_stay_slots: int = 8
    sleep_object_template: str = "NRCellDU={radio_cell_id},CESManagementFunction=1"

    def __post_init__(self) -> None:
        _check(self.lead_steps >= 1, "lead_steps", self.lead_steps, "1 or more")
        _check(0 < self.c_under < float("inf"), "c_under", self.c_under, "a finite cost above 0")
        _check(0 < self.c_over < float("inf"), "c_over", self.c_over, "a finite cost above 0")
        _check(0 <= self.headroom_percent <= 100, "headroom_percent", self.headroom_percent, "0..100")
        step = self.step_percent
        _check(1 <= step <= 50 and 100 % step == 0, "step_percent", step, "1, 2, 4, 5, 10, 20, 25 or 50")
        _check(0 <= self.deadband_percent <= self.headroom_percent, "deadband_percent", self.deadband_percent,
               "0..headroom_percent, so that what stays set covers the demand")  # fmt: skip
        _check(self.min_stay_slots >= 0, "min_stay_slots", self.min_stay_slots, "0 or more")
        for key, percent in (("least_percent", self.least_percent), ("most_percent", self.most_percent)):
            _check(0 <= percent <= 100 and percent % step == 0, key, percent, f"a multiple of {step} in 0..100")
        _check(self.least_percent <= self.most_percent, "least_percent", self.least_percent, "most_percent or less")
        _check(0 <= self.burst_percent <= 100, "burst_percent", self.burst_percent, "0..100")
        _check(0 <= self.dedicated_ratio <= 1, "dedicated_ratio", self.dedicated_ratio, "0..1")
        _check(1 <= self.layers <= 8, "layers", self.layers, "1..8")
        _check(0 < self.efficiency_bps_hz <= _HIGHEST_EFFICIENCY, "efficiency_bps_hz", self.efficiency_bps_hz,
               f"above 0, up to {_HIGHEST_EFFICIENCY}")  # fmt: skip
        _check(0 <= self.valid_for_s < float("inf"), "valid_for_s", self.valid_for_s, "0 or more seconds")
        n_rb(self.bandwidth_mhz, self.scs_khz, self.frequency_range)
        _check_template("object_template", self.object_template)
        self._check_sleep()

    def _check_sleep(self) -> None:
        low, high = self.sleep_below_percent, self.wake_above_percent
        _check(0 <= low < high <= 100, "sleep_below_percent", low, f"0..100, below wake_above_percent = {high:g}")
        _check(self.sleep_stay_slots >= 0, "sleep_stay_slots", self.sleep_stay_slots, "0 or more")
        _check_template("sleep_object_template", self.sleep_object_template)
        covered = [name for names in self.capacity_cells.values() for name in names]
        twice = sorted({name for name in covered if covered.count(name) > 1})
        both = sorted(set(covered) & set(self.capacity_cells))
        _check(not twice, "capacity_cells", twice, "each capacity radio cell under one that covers it")
        _check(not both, "capacity_cells", both, "only radio cells that never sleep as those that cover others")


class BandwidthHook:
    """State of a series: the minimum it set last, when it did and asked last; whether those that it covers sleep."""

    api_version = 1

    def __init__(self, options: BandwidthOptions) -> None:
        self._options = options
        self._tau = cost_quantile(options.c_under, options.c_over)
        self._capacity_kbps = _capacity_kbps(options)
        self._settings = _settings(options, self._tau, self._capacity_kbps)
        self._values: dict[int, Mapping[str, int]] = {}

    def levels_needed(self) -> Sequence[float]:
        """The quantile of least expected cost."""
        return (self._tau,)

    def kpis_needed(self) -> Sequence[str]:
        """The KPI the demand is read from."""
        return (self._options.demand_kpi,)

    def columns_needed(self) -> Sequence[str]:
        """None: it looks ahead only."""
        return ()

    def steps_needed(self) -> int:
        """The lead that it acts on."""
        return self._options.lead_steps

    def state_spec(self) -> Mapping[str, StateArray]:
        """The set minimum in percent (-1: none yet), the slots in which it was set and last asked for.

        With ``capacity_cells`` those of ``sleep.py`` too.
        """
        return {
            "set_min_percent": StateArray((), "int16", _NEVER_SET),
            "set_slot": StateArray((), "int64", NO_SLOT),
            "sent_slot": StateArray((), "int64", NO_SLOT),
            **(sleep.state_spec() if self._options.capacity_cells else {}),
        }

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """A new ratio where the need has left the deadband around the set one, and that one has stayed.

        Elsewhere the set one again, for it to last.
        """
        options, set_min = self._options, state["set_min_percent"]
        forecast = _forecast(batch, options.demand_kpi, self._tau, options.lead_steps)
        demand = self._demand_percent(forecast)
        need = np.round(demand.max(axis=1) + options.headroom_percent, 6)
        step = options.step_percent
        usable = (batch.source != Source.NONE) & (batch.flags & _UNUSABLE == 0) & np.isfinite(need)
        steps_up = np.ceil(np.where(usable, need, 0.0) / step) * step
        target = np.clip(steps_up, options.least_percent, options.most_percent).astype(set_min.dtype)
        first = set_min == _NEVER_SET
        inside = (need <= set_min + options.deadband_percent) & (need > set_min - step - options.deadband_percent)
        stayed = batch.slot - state["set_slot"] >= options.min_stay_slots
        fires = usable & (first | (~inside & (target != set_min) & stayed))
        lasts = batch.refresh_slots
        again = usable & ~first & ~fires & (lasts > 0) & (batch.slot - state["sent_slot"] >= lasts)
        after = {
            "set_min_percent": np.where(fires, target, set_min),
            "set_slot": np.where(fires, batch.slot, state["set_slot"]),
            "sent_slot": np.where(fires | again, batch.slot, state["sent_slot"]),
        }
        due = [
            self._action(
                batch,
                row,
                forecast[row].tolist(),
                demand[row].tolist(),
                int(set_min[row]),
                int(after["set_min_percent"][row]),
                int(state["set_slot"][row]) if again[row] else None,
            )
            for row in np.flatnonzero(fires | again).tolist()
        ]
        if not options.capacity_cells:
            return due, after
        slept, asleep = self._sleep(batch, demand, usable, state)
        return due + slept, {**after, **asleep}

    def _sleep(
        self, batch: HookBatch, demand: Floats, usable: AnyArray, state: Mapping[str, AnyArray]
    ) -> tuple[list[DueAction], Mapping[str, AnyArray]]:
        covered = [self._options.capacity_cells.get(batch.key_of(row).fields[-1], ()) for row in range(len(batch))]
        covers = np.array([bool(names) for names in covered], bool)
        peak = np.round(demand.max(axis=1), 6)
        fires, again, after = sleep.decided(
            peak, usable & covers, batch.slot, batch.refresh_slots, state, self._options
        )
        due = []
        for row in np.flatnonzero(fires | again).tolist():
            control = sleep.control_of(int(after["asleep"][row]))
            why = self._sleep_why(batch, row, demand[row], control)
            asked = ({sleep.ATTRIBUTE: control}, why, self._valid_for_s(batch))
            set_slot = int(state["asleep_slot"][row]) if again[row] else None
            for name in covered[row]:
                object_id = self._options.sleep_object_template.format(ue_id=name, radio_cell_id=name)
                due.append(DueAction(row, object_id, sleep.ATTRIBUTE, *asked, set_slot))
        return due, after

    def _sleep_why(self, batch: HookBatch, row: int, demand: Floats, control: str) -> dict[str, Any]:
        options, peak = self._options, int(demand.argmax())
        at_peak = batch.forecasts[options.demand_kpi][row, peak].tolist()
        return {
            "rule": "sleep while the covering radio cell's demand at tau stays below sleep_below_percent, wake when it "
            "passes wake_above_percent",
            "covering_radio_cell_id": batch.key_of(row).fields[-1],
            "control": control,
            "tau": self._tau,
            "c_under": options.c_under,
            "c_over": options.c_over,
            "lead_steps": options.lead_steps,
            "sleep_below_percent": options.sleep_below_percent,
            "wake_above_percent": options.wake_above_percent,
            "sleep_stay_slots": options.sleep_stay_slots,
            "forecast_source": Source(int(batch.source[row])).name.lower(),
            "demand_percent_by_lead": _plain(demand.tolist()),
            "peak_lead_steps": peak + 1,
            "interval_levels": [batch.levels[0], batch.levels[-1]],
            "interval_at_peak": _plain([at_peak[0], at_peak[-1]]),
        }

    def _valid_for_s(self, batch: HookBatch) -> float:
        return self._options.valid_for_s or (self._options.lead_steps + 1) * batch.period_us / 1e6

    def _demand_percent(self, forecast: Floats) -> Floats:
        """The forecast as a share of the resource blocks, (n, lead_steps)."""
        if self._options.demand_kpi == "dl_throughput_kbps":
            forecast = forecast * (100.0 / self._capacity_kbps)
        return np.clip(forecast, 0.0, 100.0)

    def _action(
        self,
        batch: HookBatch,
        row: int,
        forecast: list[float],
        demand: list[float],
        set_min: int,
        target: int,
        set_slot: int | None,
    ) -> DueAction:
        options, key = self._options, batch.key_of(row).fields
        peak = demand.index(max(demand))
        at_peak = batch.forecasts[options.demand_kpi][row, peak].tolist()
        why = self._settings | {
            "forecast_source": Source(int(batch.source[row])).name.lower(),
            "forecast_at_tau": _plain(forecast),
            "demand_percent_by_lead": _plain(demand),
            "peak_lead_steps": peak + 1,
            "interval_levels": [batch.levels[0], batch.levels[-1]],
            "interval_at_peak": _plain([at_peak[0], at_peak[-1]]),
            "need_percent": round(demand[peak] + options.headroom_percent, 6),
            "set_before_percent": None if set_min == _NEVER_SET else set_min,
        }
        object_id = options.object_template.format(ue_id=key[0], radio_cell_id=key[-1])
        asked = (self._value(target), why, self._valid_for_s(batch))
        return DueAction(row, object_id, "rRMPolicyRatio", *asked, set_slot)

    def _value(self, min_percent: int) -> Mapping[str, int]:
        """What is set for this minimum; there are at most 101 of them, so each is made once."""
        if min_percent not in self._values:
            step = self._options.step_percent
            ratio = RrmPolicyRatio(
                dedicated_percent=int(round(min_percent * self._options.dedicated_ratio, 6) // step * step),
                min_percent=min_percent,
                max_percent=min(100, min_percent + self._options.burst_percent),
            )
            self._values[min_percent] = {
                "rRMPolicyMinRatio": ratio.min_percent,
                "rRMPolicyMaxRatio": ratio.max_percent,
                "rRMPolicyDedicatedRatio": ratio.dedicated_percent,
            }
        return self._values[min_percent]


def _settings(options: BandwidthOptions, tau: float, capacity_kbps: float) -> dict[str, Any]:
    """The part of ``why`` that every firing shares."""
    shared: dict[str, Any] = {
        "rule": "min = ceil((max over leads of the demand forecast at tau + headroom) / step) * step",
        "demand_kpi": options.demand_kpi,
        "tau": tau,
        "c_under": options.c_under,
        "c_over": options.c_over,
        "lead_steps": options.lead_steps,
        "headroom_percent": options.headroom_percent,
        "step_percent": options.step_percent,
        "deadband_percent": options.deadband_percent,
        "min_stay_slots": options.min_stay_slots,
        "least_percent": options.least_percent,
        "most_percent": options.most_percent,
    }
    if options.demand_kpi == "dl_throughput_kbps":
        shared["capacity_kbps"] = round(capacity_kbps, 3)
        shared["efficiency_bps_hz"] = options.efficiency_bps_hz
    return shared


def _capacity_kbps(options: BandwidthOptions) -> float:
    """Throughput of all resource blocks at the configured efficiency."""
    blocks = n_rb(options.bandwidth_mhz, options.scs_khz, options.frequency_range)
    overhead_ratio = OVERHEAD_RATIO["dl", options.frequency_range]
    at_one_bit = peak_bps(blocks, options.scs_khz, options.layers, 1, overhead_ratio) / _PEAK_CODE_RATE
    return at_one_bit * options.efficiency_bps_hz / 1000


def _forecast(batch: HookBatch, kpi: str, level: float, lead_steps: int) -> Floats:
    """Forecast of the next ``lead_steps`` at one level, (n, lead_steps)."""
    forecast = batch.forecasts[kpi]
    if lead_steps > forecast.shape[1]:
        raise ConfigError(f"lead_steps = {lead_steps} is beyond the horizon of {batch.stream}: {forecast.shape[1]}")
    distance = np.abs(np.asarray(batch.levels) - level)
    if distance.min() > 1e-9:
        raise ConfigError(f"quantile level {level} is not among those of {batch.stream}: {list(batch.levels)}")
    return forecast[:, :lead_steps, int(distance.argmin())].astype(np.float64)


def _plain(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _check(allowed: bool, key: str, value: object, wording: str) -> None:
    if not allowed:
        raise ConfigError(f"{key} = {value!r} is not allowed: use {wording}")


def _check_template(key: str, template: str) -> None:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ConfigError(f"{key} = {template!r} is not allowed: {error}") from error
    plain = all(name in ("ue_id", "radio_cell_id") and not spec and not conversion for name, spec, conversion in fields)
    _check(
        bool(fields) and plain,
        key,
        template,
        "{ue_id} or {radio_cell_id} in it, and nothing else in braces",
    )


PLUGIN = Plugin("bandwidth", options=BandwidthOptions, build=BandwidthHook)
