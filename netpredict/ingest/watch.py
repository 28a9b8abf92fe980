"""What only the earlier values of a series can tell: frozen, copied and running counters, mixed units, shifted levels.

Called once for each round, so that every series has one row. All of it is a function of the rows that a series was
given, in their order; what is remembered is packed with the series' state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from netpredict.config import ChecksConfig
from netpredict.radio.quantities import kpi_of
from netpredict.radio.units import conversion, declarable
from netpredict.types import AnyArray, BoolArray, FloatArray, StateArray

PREFIX = "firewall."
WATCHED_UNITS = ("%", "kbit/s", "kbit", "ms", "PRBs")
"""Measured finely enough that a value does not come back by chance."""
WATCHED_PERIOD_S = 10.0
"""In shorter periods traffic of a constant rate stands still by right (TRACTOR: 2 % of its samples of 0.25 s)."""
STEPS_MIN = 8
"""A day of fewer steps tells nothing of a running counter."""
FALLS = 3
"""So often a column called a running counter must fall to be believed again: a counter that wraps falls once."""
SHIFT_TOLERANCE = 0.1
"""Share of a code's step by which a shift may differ from it; the error of both levels must be below it too."""
UNSEEN, DECLARED, OTHER = 0, -1, -2
"""Signs that a series has shown so far; a positive number counts what is left of its quarantine."""

State = dict[str, AnyArray]


class Watch:
    """The checks by history of one stream. Nothing is watched on a grid: its places are no series.

    ``units``: as the decoder declares them. ``series_by``: levels of UEs shift because UEs move, so only those of radio
    cells are compared.
    """

    def __init__(
        self,
        columns: Sequence[str],
        checks: ChecksConfig,
        period_s: float,
        series_by: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.found: Counter[tuple[str, str]] = Counter()
        self._columns, self._checks = tuple(columns), checks
        on_grid = any("[" in column for column in columns)
        known = [] if on_grid else [(index, kpi_of(column)) for index, column in enumerate(columns)]
        slow = period_s >= WATCHED_PERIOD_S
        fine = [k.name for _, k in known if slow and k.unit in WATCHED_UNITS and not k.setting]
        named = fine if checks.watch is None else checks.watch
        day_steps = int(np.ceil(checks.running_s / period_s))
        self._running_steps = day_steps if day_steps >= STEPS_MIN else 0
        watched = [(index, kpi) for index, kpi in known if kpi.name in named]
        self._signed = [index for index, kpi in known if kpi.unit == "dBm"]
        self._watched = [index for index, _ in watched] if checks.frozen_steps or self._running_steps else []
        self._ends = np.array([[kpi.low, kpi.high] for _, kpi in watched], np.float32).reshape(-1, 2)
        self._pairs = list(combinations([index for index, _ in watched], 2)) if checks.repeat_steps else []
        self._sender = np.array([_sender_factor(column, (units or {}).get(column)) for column in columns], np.float32)
        of_cells = "ue_id" not in series_by and checks.shift_steps
        self._levels = [index for index, kpi in known if of_cells and kpi.unit in ("dBm", "dB") and not kpi.setting]
        self._level_signed = np.array([kpi_of(columns[index]).unit == "dBm" for index in self._levels], bool)
        self._steps = np.array([_code_step(columns[index]) for index in self._levels], np.float64)
        self._spec = {PREFIX + name: array for name, array in self._arrays().items()}

    def state_spec(self) -> Mapping[str, StateArray]:
        """What it remembers of one series. Names say of which columns, so that other ones start afresh."""
        return self._spec

    def _arrays(self) -> dict[str, StateArray]:
        spec: dict[str, StateArray] = {}
        if self._signed:
            spec[self._name("sign", self._signed)] = StateArray((len(self._signed),), "int16", UNSEEN)
        if self._watched:
            shape = (len(self._watched),)
            spec[self._name("last", self._watched)] = StateArray(shape, "float32", np.nan)
            spec[self._name("same", self._watched)] = StateArray(shape, "int16")
            if self._running_steps:
                spec[self._name("rises", self._watched)] = StateArray(shape, "int32")
        if self._pairs:
            spec[self._name("equal", sorted({i for pair in self._pairs for i in pair}))] = StateArray(
                (len(self._pairs),), "int16"
            )
        if self._levels:
            shape = (len(self._levels),)
            spec[self._name("level.n", self._levels)] = StateArray(shape, "int32")
            for part in ("mean", "squares"):
                spec[self._name(f"level.{part}", self._levels)] = StateArray(shape, "float64")
            for part in ("before", "error"):
                spec[self._name(f"level.{part}", self._levels)] = StateArray(shape, "float64", np.nan)
        return spec

    def _name(self, what: str, columns: Sequence[int]) -> str:
        return f"{what}:{'+'.join(self._columns[index] for index in columns)}"

    def judge(self, values: FloatArray, state: State) -> tuple[FloatArray, BoolArray]:
        """n rows of n series (n, k): the values that are believed, NaN for the others, and which rows are doubted (n,).

        ``state`` holds the arrays (n, …) of ``state_spec`` by their names, and is moved on in place.
        """
        arrays = {name.removeprefix(PREFIX).split(":", 1)[0]: array for name, array in state.items()}
        taken: list[tuple[str, int, BoolArray]] = []
        doubted = self._judge_signs(values, arrays["sign"], taken) if self._signed else np.zeros(len(values), bool)
        if self._pairs:
            self._judge_copies(values, arrays["equal"], taken)
        if self._watched:
            self._judge_courses(values, arrays, taken)
        if self._levels:
            self._note_levels(values, arrays)
        if taken:
            values = values.copy()
            for reason, column, mask in taken:
                values[mask, column] = np.nan
                self.found[reason, self._columns[column]] += int(mask.sum())
        return values, doubted

    def _judge_signs(self, values: FloatArray, sign: AnyArray, taken: list[tuple[str, int, BoolArray]]) -> BoolArray:
        """Trap 10. A value of the other sign begins a quarantine once both were shown, or lengthens it."""
        here = values[:, self._signed]
        other, declared = here >= 0, here < 0
        if not other.any() and ((sign == DECLARED) | (sign == UNSEEN)).all():  # as nearly always
            sign[declared] = DECLARED
            return np.zeros(len(values), bool)
        mixed = (other & ((sign == DECLARED) | (sign > 0))) | (declared & (sign == OTHER))
        held = mixed | (sign > 0)
        left = np.where(declared & (sign > 0), sign - 1, sign)
        left = np.where(declared & (sign >= 0) & (left == 0), DECLARED, left)
        left = np.where(other & (sign == UNSEEN), OTHER, left)
        sign[:] = np.where(mixed, self._checks.quarantine_steps, left)
        for place, column in enumerate(self._signed):
            if other[:, place].any():
                taken.append(("code_for_dbm", column, other[:, place]))
            if held[:, place].any():
                self.found["mixed_signs", self._columns[column]] += int(held[:, place].sum())
        return np.asarray(held.any(axis=1), bool)

    def _judge_copies(self, values: FloatArray, equal: AnyArray, taken: list[tuple[str, int, BoolArray]]) -> None:
        """Trap 6, as the sender wrote the numbers: units make different ones of a copy."""
        for place, (one, two) in enumerate(self._pairs):
            left, right = (values[:, column] * self._sender[column] for column in (one, two))
            alike = (np.abs(left - right) <= 1e-6 * np.abs(left)) & (left != 0)
            if not (alike.any() or equal[:, place].any()):  # as nearly always
                continue
            alike &= self._inside(values, one) & self._inside(values, two)
            count = np.where(np.isnan(left + right), equal[:, place], np.where(alike, equal[:, place] + 1, 0))
            equal[:, place] = np.minimum(count, self._checks.repeat_steps)
            copied = alike & (equal[:, place] >= self._checks.repeat_steps)
            if copied.any():
                taken += [("repeats_another", one, copied), ("repeats_another", two, copied)]

    def _inside(self, values: FloatArray, column: int) -> BoolArray:
        low, high = kpi_of(self._columns[column]).low, kpi_of(self._columns[column]).high
        here = values[:, column]
        return np.asarray((here != 0) & (here > low) & (here < high), bool)

    def _judge_courses(
        self, values: FloatArray, arrays: Mapping[str, AnyArray], taken: list[tuple[str, int, BoolArray]]
    ) -> None:
        """Traps 15 and 14: the same value again and again, or one that only rises."""
        here, last = values[:, self._watched], arrays["last"]
        seen = ~np.isnan(here)
        if self._checks.frozen_steps:
            self._take("frozen", self._frozen(here, last, seen, arrays["same"]), taken)
        if self._running_steps:
            self._take("running_counter", self._running(here, last, seen, arrays["rises"]), taken)
        np.copyto(last, here, where=seen)

    def _frozen(self, here: FloatArray, last: FloatArray, seen: BoolArray, same: AnyArray) -> BoolArray:
        again = here == last
        if again.any():
            again &= (here != 0) & (here > self._ends[:, 0]) & (here < self._ends[:, 1])
        count = np.minimum(same * again + 1, self._checks.frozen_steps)
        np.copyto(same, count, where=seen, casting="same_kind")
        return np.asarray(seen & (same >= self._checks.frozen_steps), bool)

    def _running(self, here: FloatArray, last: FloatArray, seen: BoolArray, rises: AnyArray) -> BoolArray:
        falls = here < last
        if rises.min() < 0:
            held = rises < 0
            rises[:] = np.where(held, rises + falls, (rises + (here > last)) * ~falls)
        else:
            rises += here > last
            rises *= ~falls
        rises[rises >= self._running_steps] = -FALLS
        return np.asarray(seen & (rises < 0), bool)

    def _take(self, reason: str, mask: BoolArray, taken: list[tuple[str, int, BoolArray]]) -> None:
        if mask.any():
            places = np.flatnonzero(mask.any(axis=0)).tolist()
            taken += [(reason, self._watched[place], mask[:, place]) for place in places]

    def _note_levels(self, values: FloatArray, arrays: Mapping[str, AnyArray]) -> None:
        """Trap 11: the mean of ``shift_steps`` values is one step of the codes away from that of those before."""
        here = values[:, self._levels].astype(np.float64)
        here[self._level_signed & (here >= 0)] = np.nan
        n, mean, squares = arrays["level.n"], arrays["level.mean"], arrays["level.squares"]
        seen = ~np.isnan(here)
        n += seen
        off = np.where(seen, here - mean, 0.0)
        mean += off / np.maximum(n, 1)
        squares += off * np.where(seen, here - mean, 0.0)
        full = n >= self._checks.shift_steps
        if full.any():
            self._close_levels(full, arrays)

    def _close_levels(self, full: BoolArray, arrays: Mapping[str, AnyArray]) -> None:
        n, mean, squares = arrays["level.n"], arrays["level.mean"], arrays["level.squares"]
        before, error = arrays["level.before"], arrays["level.error"]
        now = np.sqrt(squares) / np.maximum(n, 1)
        off = np.abs(np.abs(mean - before) - self._steps)
        most = SHIFT_TOLERANCE * self._steps
        shifted = full & (off <= most) & (np.hypot(now, error) <= most)
        for place in np.flatnonzero(shifted.any(axis=0)).tolist():
            self.found["level_shift", self._columns[self._levels[place]]] += int(shifted[:, place].sum())
        before[full], error[full] = mean[full], now[full]
        for array in (n, mean, squares):
            array[full] = 0


def _sender_factor(column: str, unit: str | None) -> float:
    """What makes of a KPI's number what the sender wrote, for a unit that differs by a factor."""
    declared = None if unit is None else conversion(column, unit, "decoder_options")
    return 1.0 if declared is None or declared.codes else 1.0 / declared.factor


def _code_step(column: str) -> float:
    """Step of the codes of a quantity in its unit."""
    steps = [1.0 / made.codes.codes_per_unit for made in declarable(column).values() if made.codes]
    return max(steps, default=1.0)
