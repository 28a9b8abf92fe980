"""Hook ``mcs``: picks the modulation and coding scheme that the forecast CQI carries (TS 38.214 5.1.3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.plugins import Plugin
from netpredict.radio.tables import (
    CQI_BLER_TARGET_RATIO,
    MAX_CQI,
    NO_MCS,
    cqi_efficiency,
    cqi_to_mcs,
    mcs_efficiency,
)
from netpredict.types import NO_SLOT, AnyArray, DueAction, FiringBatch, HookBatch, Quality, Source, StateArray

_UNUSABLE = Quality.SUSPECT | Quality.APPROXIMATE
_KPI = "cqi"


class McsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the mcs hook."""

    mcs_table: int = 1
    tau: float = 0.1
    lead_steps: int = 1
    min_stay_slots: int = 2
    object_template: str = "UE={ue_id}"
    valid_for_s: float = 0.0

    def __post_init__(self) -> None:
        cqi_to_mcs(self.mcs_table)
        _check(0 < self.tau < 1, "tau", self.tau, "a quantile level between 0 and 1")
        _check(self.lead_steps >= 1, "lead_steps", self.lead_steps, "1 or more")
        _check(self.min_stay_slots >= 0, "min_stay_slots", self.min_stay_slots, "0 or more")
        _check(0 <= self.valid_for_s < float("inf"), "valid_for_s", self.valid_for_s, "0 or more seconds")
        _check_template(self.object_template)


class McsHook:
    """State of a series: the index it set last, and in which slot."""

    api_version = 1

    def __init__(self, options: McsOptions) -> None:
        self._options = options
        self._mcs_by_cqi = cqi_to_mcs(options.mcs_table)

    def levels_needed(self) -> Sequence[float]:
        """The quantile that is acted on; a low one is cautious."""
        return (self._options.tau,)

    def kpis_needed(self) -> Sequence[str]:
        """The channel quality indicator."""
        return (_KPI,)

    def columns_needed(self) -> Sequence[str]:
        """None: it looks ahead only."""
        return ()

    def steps_needed(self) -> int:
        """The lead that it acts on."""
        return self._options.lead_steps

    def state_spec(self) -> Mapping[str, StateArray]:
        """The set index (-1: none yet) and its slot."""
        return {"mcs_index": StateArray((), "int16", NO_MCS), "set_slot": StateArray((), "int64", NO_SLOT)}

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """A new index where the forecast CQI asks for one, not before the old one has stayed. CQI 0 has no MCS."""
        set_mcs, set_slot = state["mcs_index"], state["set_slot"]
        forecast = self._forecast_cqi(batch)
        usable = (batch.source != Source.NONE) & (batch.flags & _UNUSABLE == 0) & np.isfinite(forecast)
        cqi = np.clip(np.floor(np.where(usable, forecast, 0.0)), 0, MAX_CQI).astype(np.int64)
        mcs = self._mcs_by_cqi[cqi].astype(set_mcs.dtype)
        stayed = (set_mcs == NO_MCS) | (batch.slot - set_slot >= self._options.min_stay_slots)
        fires = usable & (mcs != NO_MCS) & (mcs != set_mcs) & stayed
        after = {"mcs_index": np.where(fires, mcs, set_mcs), "set_slot": np.where(fires, batch.slot, set_slot)}
        actions = [
            self._action(batch, row, float(forecast[row]), int(cqi[row]), int(set_mcs[row]))
            for row in np.flatnonzero(fires).tolist()
        ]
        return actions, after

    def _forecast_cqi(self, batch: HookBatch) -> AnyArray:
        """Forecast CQI ``lead_steps`` ahead at tau, (n,)."""
        forecast, lead_steps, tau = batch.forecasts[_KPI], self._options.lead_steps, self._options.tau
        if lead_steps > forecast.shape[1]:
            raise ConfigError(f"lead_steps = {lead_steps} is beyond the horizon of {batch.stream}: {forecast.shape[1]}")
        distance = np.abs(np.asarray(batch.levels) - tau)
        if distance.min() > 1e-9:
            raise ConfigError(f"quantile level {tau} is not among those of {batch.stream}: {list(batch.levels)}")
        # float32 has no 8.99: its two decimals are read back before the floor
        column: AnyArray = np.round(forecast[:, lead_steps - 1, int(distance.argmin())].astype(np.float64), 2)
        return column

    def _action(self, batch: HookBatch, row: int, forecast_cqi: float, cqi: int, set_mcs: int) -> DueAction:
        options, key = self._options, batch.key_of(row).fields
        mcs, table = int(self._mcs_by_cqi[cqi]), options.mcs_table
        why = {
            "rule": "the MCS paired with floor(forecast CQI at tau), both of the table of the same number",
            "forecast_source": Source(int(batch.source[row])).name.lower(),
            "tau": options.tau,
            "lead_steps": options.lead_steps,
            "lead_s": options.lead_steps * batch.period_us / 1e6,
            "forecast_cqi": forecast_cqi,
            "interval_levels": [batch.levels[0], batch.levels[-1]],
            "interval_cqi": [
                round(float(edge), 2) for edge in batch.forecasts[_KPI][row, options.lead_steps - 1, [0, -1]]
            ],
            "cqi": cqi,
            "cqi_efficiency_bps_hz": float(cqi_efficiency(table)[cqi]),
            "mcs_efficiency_bps_hz": float(mcs_efficiency(table)[mcs]),
            "set_before_mcs_index": None if set_mcs == NO_MCS else set_mcs,
            "min_stay_slots": options.min_stay_slots,
        }
        value = {"mcs_index": mcs, "mcs_table": table, "bler_target_ratio": CQI_BLER_TARGET_RATIO[table]}
        object_id = options.object_template.format(ue_id=key[0], radio_cell_id=key[-1])
        valid_for_s = options.valid_for_s or (options.lead_steps + 1) * batch.period_us / 1e6
        return DueAction(row, object_id, "mcsIndex", value, why, valid_for_s)


def _check(allowed: bool, key: str, value: object, wording: str) -> None:
    if not allowed:
        raise ConfigError(f"{key} = {value!r} is not allowed: use {wording}")


def _check_template(template: str) -> None:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ConfigError(f"object_template = {template!r} is not allowed: {error}") from error
    plain = all(name in ("ue_id", "radio_cell_id") and not spec and not conversion for name, spec, conversion in fields)
    _check(
        bool(fields) and plain,
        "object_template",
        template,
        "{ue_id} or {radio_cell_id} in it, and nothing else in braces",
    )


PLUGIN = Plugin("mcs", options=McsOptions, build=McsHook)
