"""A trace: one recording as a cleaned, not interpolated table, and the counts of what was repaired to get it."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

MISSING_MARKS = ("", "-")
FOLD_S = 1800.0
WEEK_US = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Trace:
    """One recording.

    ``frame`` has ``event_time_us`` (int64, µs since the epoch, UTC), ``radio_cell_id``, ``ue_id`` where there is one,
    and KPI columns by their wire names; NaN is missing. Rows stand in the order of the file, duplicates included.
    ``repairs`` counts by reason the values or rows that were changed or dropped, ``noted`` the oddities left in.
    """

    name: str
    frame: pd.DataFrame
    repairs: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    group: str | None = None

    def note(self, reason: str, number: int) -> None:
        """Count ``number`` oddities left in as published; zero leaves no entry."""
        if number:
            self.noted[reason] = self.noted.get(reason, 0) + int(number)

    def duplicate_stamps(self) -> int:
        """Rows whose event time equals that of the row before."""
        return int((self._steps_us() == 0).sum())

    def gaps(self, period_s: float) -> int:
        """Rows that come more than ``period_s`` after the row before."""
        return int((self._steps_us() > period_s * 1e6).sum())

    def shifted(self, weeks: int) -> "Trace":
        """The same trace, that many weeks later: the hour (UTC) and the weekday stay."""
        later = self.frame.assign(event_time_us=self.frame["event_time_us"] + weeks * WEEK_US)
        return replace(self, frame=later)

    def starting_at(self, time_us: int) -> "Trace":
        """The same trace, moved so that it begins at ``time_us``: hours and weekdays do not stay."""
        later = self.frame.assign(event_time_us=self.frame["event_time_us"] + time_us - self.start_us)
        return replace(self, frame=later)

    @property
    def start_us(self) -> int:
        """Event time of its first row, µs since the epoch, UTC."""
        return int(self.frame["event_time_us"].iloc[0])

    def _steps_us(self) -> np.ndarray:
        return np.diff(self.frame["event_time_us"].to_numpy())


class Cleaner:
    """Turns published text into numbers and times, and counts in ``repairs`` whatever it could not take as it was."""

    def __init__(self, missing: Sequence[str] = MISSING_MARKS, *, keep_sentinels: bool = False) -> None:
        self.missing = tuple(missing)
        self.keep_sentinels = keep_sentinels
        self.repairs: dict[str, int] = {}

    def count(self, reason: str, number: int) -> None:
        """Add ``number`` to the count of ``reason``; zero leaves no entry."""
        if number:
            self.repairs[reason] = self.repairs.get(reason, 0) + int(number)

    def table(self, lines: Iterable[str], delimiter: str = ",") -> pd.DataFrame:
        """Read delimited text with a header into columns of stripped strings; rows of another width are dropped."""
        rows = csv.reader(lines, delimiter=delimiter)
        header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
        filled = [row for row in rows if row]
        good = [row for row in filled if len(row) == len(header)]
        self.count("unreadable_row", len(filled) - len(good))
        columns = {name: [row[i].strip() for row in good] for i, name in enumerate(header) if name}
        return pd.DataFrame(columns, dtype="str")

    def numbers(self, column: pd.Series, sentinels: Sequence[float] = ()) -> pd.Series:
        """Text to float64; missing marks and ``sentinels`` become NaN, and so does text that is no finite number."""
        values = pd.to_numeric(column, errors="coerce").astype("float64")
        values = values.where(np.isfinite(values))
        self.count(
            f"unreadable_value:{column.name}", (values.isna() & column.notna() & ~column.isin(self.missing)).sum()
        )
        if self.keep_sentinels:
            return values
        sentinel = values.isin(sentinels)
        self.count(f"sentinel:{column.name}", sentinel.sum())
        return values.mask(sentinel)

    def local_times_us(self, column: pd.Series, form: str, zone: str) -> pd.Series:
        """Local wall-clock text to UTC µs (NaN where unreadable).

        A stamp that exists twice (clocks set back) is the first pass until the stamps of the trace have jumped back
        by half an hour, then the second. One that never existed (clocks set forward) moves to the next that did.
        """
        naive = pd.Series(pd.to_datetime(column, format=form, errors="coerce"))
        second_pass = (naive.diff().dt.total_seconds() <= -FOLD_S).cumsum() > 0
        first = _localize(naive, zone, np.ones(len(naive), dtype=bool))
        second = _localize(naive, zone, np.zeros(len(naive), dtype=bool))
        self.count("ambiguous_local_time", (first.notna() & (first != second)).sum())
        self.count(
            "nonexistent_local_time", (first.dt.tz_convert(zone).dt.tz_localize(None) != naive)[naive.notna()].sum()
        )
        return microseconds(first.where(~second_pass, second))

    def keep_stamped(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Drop and count the rows without a readable event time; the rest gets an int64 ``event_time_us``."""
        stamped = frame["event_time_us"].notna()
        self.count("unreadable_stamp", (~stamped).sum())
        kept = frame[stamped].reset_index(drop=True)
        return kept.assign(event_time_us=kept["event_time_us"].astype("int64"))


def _localize(naive: pd.Series, zone: str, first_pass: np.ndarray) -> pd.Series:
    # Both conversions move a nonexistent stamp forward alike, so only true ambiguity makes them differ.
    localized: pd.Series = naive.dt.tz_localize(zone, ambiguous=first_pass, nonexistent="shift_forward").dt.tz_convert(
        "UTC"
    )
    return localized


def microseconds(stamps: pd.Series) -> pd.Series:
    """Aware stamps as Int64 µs since the epoch, NA where missing."""
    integers = stamps.dt.as_unit("us").astype("int64").astype("Int64")
    stamped: pd.Series = integers.where(stamps.notna())
    return stamped
