"""Hooks of a stream: they see a round, answer what is due, and cannot hurt anything but their own reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import structlog

from netpredict.act.hook import AdaptationHook
from netpredict.config import HookConfig
from netpredict.errors import PluginError
from netpredict.forecast.series import SeriesTable
from netpredict.lane import firing_id
from netpredict.types import REFRESHES, AnyArray, DueAction, Firing, HookBatch, Source, StateArray

LOG = structlog.get_logger(__name__)
_ENCODER = msgspec.json.Encoder()
State = Mapping[str, AnyArray]


@dataclass(slots=True)
class BoundHook:
    """A configured hook on a stream; its state is one row per series, in columns ``hook.<name>.``…

    ``failures`` counts the reports for which it raised.
    """

    name: str
    config: HookConfig
    hook: AdaptationHook
    arrays: tuple[str, ...]
    failures: int = 0
    _errors: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Prefix of its columns."""
        return f"hook.{self.name}."

    def columns(self) -> dict[str, StateArray]:
        """What the SeriesTable must hold for it."""
        return {self.prefix + name: spec for name, spec in self.hook.state_spec().items()}

    def decide(self, table: SeriesTable, batch: HookBatch, series: AnyArray) -> list[tuple[int, Firing]]:
        """Firings of a round with the row of each; the state of ``series`` (n,) moves on.

        A report for which the hook raises fires nothing and keeps its state, whatever else is in the batch.
        """
        batch = replace(batch, refresh_slots=refresh_slots(self.config, batch.period_us))
        state = table.gather(self.prefix, self.arrays, series)
        for array in state.values():
            array.setflags(write=False)
        fired, after = self._decided(batch, state)
        table.scatter(self.prefix, series, after)
        if self._errors:
            self.failures += len(self._errors)
            LOG.error("hook_failed", hook=self.name, reports=len(self._errors), error=self._errors[0][:500])
            self._errors.clear()
        return fired

    def _decided(self, batch: HookBatch, state: State) -> tuple[list[tuple[int, Firing]], State]:
        try:
            due, after = self.hook.decide(batch, state)
            return [(action.row, self._firing(batch, action)) for action in due], _checked(after, state)
        except MemoryError:
            raise
        except Exception as error:  # a hook may raise anything: halve until the reports to blame are alone
            middle = _middle(batch.record)
            if middle is None:
                self._errors.append(str(error))
                return [], state
        left, left_state = self._decided(*_part(batch, state, 0, middle))
        right, right_state = self._decided(*_part(batch, state, middle, len(batch)))
        after = {name: np.concatenate([left_state[name], right_state[name]]) for name in state}
        return left + [(row + middle, firing) for row, firing in right], after

    def _firing(self, batch: HookBatch, action: DueAction) -> Firing:
        if not 0 <= action.row < len(batch):
            raise PluginError(f"row {action.row} of a batch of {len(batch)}")
        _ENCODER.encode((action.value, action.why))  # else the commit would find out
        time_us = int(batch.slot_time_us[action.row])
        key = batch.key_of(action.row)
        group = self.config.group_of(key.fields[-1])
        why = {**action.why, "basis": self._basis(batch, action.row)}
        if action.set_slot is not None:
            set_us = time_us - (int(batch.slot[action.row]) - action.set_slot) * batch.period_us
            why[REFRESHES] = firing_id(self.name, action.object_id, action.attribute, set_us)
        return Firing(
            firing_id(self.name, action.object_id, action.attribute, time_us),
            self.name,
            batch.stream,
            action.object_id,
            action.attribute,
            action.value,
            why,
            self.config.mode_of(key.fields[-1]),
            time_us,
            time_us + round(action.valid_for_s * 1_000_000),
            time_us + round(self.config.effect_s * 1_000_000),
            series=str(key),
            group="" if group is None else group.name,
        )

    def _basis(self, batch: HookBatch, row: int) -> dict[str, Any]:
        """What the hook could see: version, source and flags of the forecast, what it came from, and its interval.

        ``observed`` by column and ``forecast`` by KPI (middle and outer levels at each lead that the hook reads), in
        natural units, None = missing.
        """
        levels, kpis, steps = batch.levels, self.hook.kpis_needed(), self.hook.steps_needed()
        middle = min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))
        outer = sorted({0, middle, len(levels) - 1})
        seen = {*kpis, *self.hook.columns_needed()}
        observed = zip(batch.columns, batch.observed[row], strict=True)
        return {
            "model": batch.model_of(row),
            "source": Source(int(batch.source[row])).name.lower(),
            "quality": int(batch.flags[row]),
            "observed": {column: _plain(value) for column, value in observed if column in seen},
            "levels": [levels[place] for place in outer],
            "forecast": {
                kpi: [[_plain(value) for value in lead[outer]] for lead in batch.forecasts[kpi][row, :steps]]
                for kpi in kpis
            },
        }


def refresh_slots(config: HookConfig, period_us: int) -> int:
    """Half of what an action of a hook lasts, so that one refresh may be late; 0 where it cannot be in time."""
    return round(config.effect_s * 1_000_000) // (2 * period_us)


def _plain(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _checked(after: State, before: State) -> dict[str, AnyArray]:
    if after.keys() != before.keys():
        raise PluginError(f"state {sorted(after)} in place of {sorted(before)}")
    checked = {name: np.asarray(array) for name, array in after.items()}
    for name, array in checked.items():
        if array.shape != before[name].shape:
            raise PluginError(f"state {name} has shape {array.shape} in place of {before[name].shape}")
    return {name: array.astype(before[name].dtype, copy=False) for name, array in checked.items()}


def _middle(record: AnyArray) -> int | None:
    """The start of the report nearest to the middle; None when there is one report only."""
    starts = np.flatnonzero(record[1:] != record[:-1]) + 1
    return int(starts[len(starts) // 2]) if len(starts) else None


def _part(batch: HookBatch, state: State, start: int, end: int) -> tuple[HookBatch, State]:
    rows = slice(start, end)
    part = replace(
        batch,
        slot=batch.slot[rows],
        slot_time_us=batch.slot_time_us[rows],
        record=batch.record[rows],
        observed=batch.observed[rows],
        forecasts={kpi: values[rows] for kpi, values in batch.forecasts.items()},
        source=batch.source[rows],
        flags=batch.flags[rows],
        key_of=lambda row: batch.key_of(row + start),
        model_of=lambda row: batch.model_of(row + start),
    )
    return part, {name: array[rows] for name, array in state.items()}


class Fired:
    """Firings of a poll, gathered round by round and handed over in the order of the log."""

    def __init__(self) -> None:
        self._fired: list[tuple[int, int, Firing, tuple[str, ...]]] = []

    def add(self, bound: BoundHook, fired: Sequence[tuple[int, Firing]], record: AnyArray, lane: AnyArray) -> None:
        """Firings of a round with their rows; ``record`` and ``lane`` (n,) are the round's."""
        names = tuple(bound.config.actuators)
        self._fired += [(int(record[row]), int(lane[row]), firing, names) for row, firing in fired]

    def hand_over(self, lanes: Sequence[Any]) -> None:
        """Give each firing to its lane, in the order of the log and not of the rounds.

        Of two with one id (two reports of a UE in one slot) the first counts, here and in the store.
        """
        for _, index, firing, actuators in sorted(self._fired, key=lambda fired: fired[0]):
            if lanes[index] is not None:
                lanes[index].firings.append((firing, actuators))
        self._fired.clear()
