"""Hook ``mcs``: picks the modulation and coding scheme worth most by the forecast CQI (TS 38.214 5.1.3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.plugins import Plugin
from netpredict.radio.classes import FINE_LEVELS, classes_of, probability_at_least
from netpredict.radio.link import Price, advance_price, choose_cqi
from netpredict.radio.tables import CQI_BLER_TARGET_RATIO, NO_MCS, cqi_efficiency, cqi_to_mcs, mcs_efficiency
from netpredict.types import NO_SLOT, AnyArray, DueAction, FiringBatch, HookBatch, Quality, Source, StateArray

_UNUSABLE = Quality.SUSPECT | Quality.APPROXIMATE
_KPI = "cqi"
_CLASSES = classes_of(_KPI)


class McsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the mcs hook."""

    mcs_table: int = 1
    bler_target: float = 0.0
    price: float = 4.0
    price_rate: float = 0.1
    price_least: float = 0.05
    price_most: float = 200.0
    lead_steps: int = 1
    min_stay_slots: int = 1
    object_template: str = "UE={ue_id}"
    valid_for_s: float = 0.0

    def __post_init__(self) -> None:
        cqi_to_mcs(self.mcs_table)
        _check(0 <= self.bler_target < 1, "bler_target", self.bler_target, "a ratio below 1; 0 = that of the table")
        self.settings()
        _check(self.lead_steps >= 1, "lead_steps", self.lead_steps, "1 or more")
        _check(self.min_stay_slots >= 0, "min_stay_slots", self.min_stay_slots, "0 or more")
        _check(0 <= self.valid_for_s < float("inf"), "valid_for_s", self.valid_for_s, "0 or more seconds")
        _check_template(self.object_template)

    def settings(self) -> Price:
        """What a lost block costs; ConfigError where that makes no sense."""
        target = self.bler_target or CQI_BLER_TARGET_RATIO[self.mcs_table]
        return Price(target, self.price, self.price_rate, self.price_least, self.price_most)


class McsHook:
    """State of a series: the index it set last and in which slot, those of the last slots, and the price of a loss."""

    api_version = 1

    def __init__(self, options: McsOptions) -> None:
        self._options = options
        self._price = options.settings()
        self._mcs_by_cqi = cqi_to_mcs(options.mcs_table)
        self._efficiency = cqi_efficiency(options.mcs_table)

    def levels_needed(self) -> Sequence[float]:
        """The levels by which the chance of every CQI is read back."""
        return FINE_LEVELS

    def kpis_needed(self) -> Sequence[str]:
        """The channel quality indicator."""
        return (_KPI,)

    def columns_needed(self) -> Sequence[str]:
        """None: without ``bler_ratio`` the price stays."""
        return ()

    def steps_needed(self) -> int:
        """The lead that it acts on."""
        return self._options.lead_steps

    def state_spec(self) -> Mapping[str, StateArray]:
        """The set index (-1: none yet), its slot and that in which it was last asked for; price.

        ``recent`` are the indices set ``lead_steps`` slots back, newest first.
        """
        return {
            "mcs_index": StateArray((), "int16", NO_MCS),
            "set_slot": StateArray((), "int64", NO_SLOT),
            "sent_slot": StateArray((), "int64", NO_SLOT),
            "recent": StateArray((self._options.lead_steps,), "int16", NO_MCS),
            "price": StateArray((), "float32", self._price.first),
        }

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """The index whose CQI is worth most, where it is another one and the old one has stayed; it again, to last."""
        set_mcs, set_slot = state["mcs_index"], state["set_slot"]
        price = self._heard(batch, state).astype(state["price"].dtype)
        at_least = self._at_least(batch)
        usable = _usable(batch) & (batch.source != Source.NONE) & np.isfinite(at_least[:, 0])
        cqi = choose_cqi(at_least, self._efficiency, price)
        mcs = self._mcs_by_cqi[cqi].astype(set_mcs.dtype)
        stayed = (set_mcs == NO_MCS) | (batch.slot - set_slot >= self._options.min_stay_slots)
        fires = usable & (mcs != set_mcs) & stayed
        lasts = batch.refresh_slots
        again = usable & (mcs == set_mcs) & (lasts > 0) & (batch.slot - state["sent_slot"] >= lasts)
        now = np.where(fires, mcs, set_mcs)
        after = {
            "mcs_index": now,
            "set_slot": np.where(fires, batch.slot, set_slot),
            "sent_slot": np.where(fires | again, batch.slot, state["sent_slot"]),
            "recent": np.concatenate([now[:, None], state["recent"][:, :-1]], axis=1),
            "price": price,
        }
        actions = [
            self._action(
                batch,
                row,
                at_least[row],
                int(cqi[row]),
                float(price[row]),
                int(set_mcs[row]),
                int(set_slot[row]) if again[row] else None,
            )
            for row in np.flatnonzero(fires | again).tolist()
        ]
        return actions, after

    def _heard(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> AnyArray:
        """The price after the block error ratio of this slot; one of an index that others set is not heard."""
        price = state["price"]
        if "bler_ratio" not in batch.columns:
            return price
        mine = _usable(batch)
        if "mcs" in batch.columns:
            used = batch.observed[:, batch.columns.index("mcs")]
            mine &= (state["recent"] != NO_MCS).any(axis=1) & (used[:, None] == state["recent"]).any(axis=1)
        bler = np.where(mine, batch.observed[:, batch.columns.index("bler_ratio")], np.nan)
        return advance_price(price, bler, self._price)

    def _at_least(self, batch: HookBatch) -> AnyArray:
        """P(CQI >= c) ``lead_steps`` ahead, (n, 16)."""
        forecast, lead_steps = batch.forecasts[_KPI], self._options.lead_steps
        if lead_steps > forecast.shape[1]:
            raise ConfigError(f"lead_steps = {lead_steps} is beyond the horizon of {batch.stream}: {forecast.shape[1]}")
        return probability_at_least(forecast[:, lead_steps - 1], batch.levels, _CLASSES)

    def _action(
        self,
        batch: HookBatch,
        row: int,
        at_least: AnyArray,
        cqi: int,
        price: float,
        set_mcs: int,
        set_slot: int | None,
    ) -> DueAction:
        options, key = self._options, batch.key_of(row).fields
        mcs, table, arrives = int(self._mcs_by_cqi[cqi]), options.mcs_table, float(at_least[cqi])
        worth = float(self._efficiency[cqi]) * arrives - price * (1 - arrives)
        why = {
            "rule": "the MCS paired with the CQI of largest efficiency * P(arrives) - price * P(lost)",
            "forecast_source": Source(int(batch.source[row])).name.lower(),
            "lead_steps": options.lead_steps,
            "lead_s": options.lead_steps * batch.period_us / 1e6,
            "cqi": cqi,
            "arrives_probability": round(arrives, 4),
            "price_bps_hz": round(price, 4),
            "worth_bps_hz": round(worth, 4),
            "bler_target_ratio": self._price.bler_target,
            "probability_of_cqi_at_least": [round(float(chance), 4) for chance in at_least],
            "cqi_efficiency_bps_hz": float(self._efficiency[cqi]),
            "mcs_efficiency_bps_hz": float(mcs_efficiency(table)[mcs]),
            "set_before_mcs_index": None if set_mcs == NO_MCS else set_mcs,
            "min_stay_slots": options.min_stay_slots,
        }
        value = {"mcs_index": mcs, "mcs_table": table, "bler_target_ratio": self._price.bler_target}
        object_id = options.object_template.format(ue_id=key[0], radio_cell_id=key[-1])
        valid_for_s = options.valid_for_s or (options.lead_steps + 1) * batch.period_us / 1e6
        return DueAction(row, object_id, "mcsIndex", value, why, valid_for_s, set_slot)


def _usable(batch: HookBatch) -> AnyArray:
    return np.asarray(batch.flags & _UNUSABLE == 0)


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
