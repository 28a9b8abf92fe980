"""The live view of the demo: numbers read from the running daemon and its store, and their picture on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from netpredict.cli.demo_world import Network
from netpredict.operate.daemon import Daemon
from netpredict.store.history import History
from netpredict.types import Source

BARS = "▁▂▃▄▅▆▇█"
RATE_OVER_S = 3.0
STORE_EVERY_S = 1.5
"""Skill and actions are asked of the store this often: each question takes the daemon some time."""
INTERVAL = "0.1..0.9"
WIDE = 120
"""Columns from which on a fourth lead time has room."""
TALL = 40
"""Lines from which on tables stand apart."""
ACTIONS_READ = 12
GOOD, BAD, DIM, TITLE = "bright_cyan", "orange3", "bright_black", "bold"
"""Told apart by colour-blind people too; a sign or a word always says the same."""


@dataclass
class SkillRow:
    """Skill of one predictor on one stream, model forecasts only: by lead time, over all, and its 80 % coverage."""

    stream: str
    predictor: str
    kpi: str
    n: int = 0
    mae: float = 0.0
    naive_mae: float = 0.0
    covered: float = 0.0
    by_lead: dict[int, float] = field(default_factory=dict)
    spread_n: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row of ``History.skill`` in."""
        n = self.n + row["n"]
        self.mae += (row["mae"] - self.mae) * row["n"] / n
        self.naive_mae += (row["naive_mae"] - self.naive_mae) * row["n"] / n
        if INTERVAL in row["coverage"]:
            self.spread_n += row["n"] - row["flat"]
            self.covered += (row["coverage"][INTERVAL] - self.covered) * (row["n"] - row["flat"]) / self.spread_n
        self.n = n
        if row["skill"] is not None:
            self.by_lead[row["lead_steps"]] = row["skill"]

    @property
    def skill(self) -> float:
        """1 - mae / mae of naive, over all lead times."""
        return 1 - self.mae / self.naive_mae if self.naive_mae else 0.0


def skill_rows(rows: Sequence[Mapping[str, Any]]) -> list[SkillRow]:
    """Rows of ``History.skill`` by stream and predictor."""
    found: dict[tuple[str, str, str], SkillRow] = {}
    for row in rows:
        if row["source"] == "model" and row["n"]:
            group = (row["stream"], row["predictor"], row["kpi"])
            found.setdefault(group, SkillRow(*group)).add(row)
    return list(found.values())


@dataclass
class Snapshot:
    """What the view shows, read at one time."""

    phase: str = "starting"
    elapsed_s: float = 0.0
    progress: float = 0.0
    event_time_us: int = 0
    pace: float = 0.0
    read: int = 0
    durable: int = 0
    rate: float = 0.0
    lag: int = 0
    periods_s: Mapping[str, float] = field(default_factory=dict)
    commits: int = 0
    commit_s: float = 0.0
    forecasts: int = 0
    dead: int = 0
    streams: list[tuple[str, str, int, int, Sequence[int]]] = field(default_factory=list)
    firings: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    under_way: bool = False
    skill: list[SkillRow] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)


class Watcher:
    """Reads a running daemon. Nothing here waits for it or holds it up."""

    def __init__(self, daemon: Daemon, network: Network, history: History) -> None:
        self.rates: deque[float] = deque(maxlen=400)
        self._daemon = daemon
        self._network = network
        self._history = history
        self._started_s = time.monotonic()
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=200)
        self._asked_s = 0.0
        self._skill: list[SkillRow] = []
        self._actions: list[dict[str, Any]] = []

    def read(self, ask_store: bool = True) -> Snapshot:
        """The numbers of now."""
        now_s = time.monotonic()
        tally, daemon = self._daemon.tally, self._daemon
        pipeline = daemon.pipeline
        outcomes = pipeline.outcomes.copy()
        read = sum(outcomes.values())
        event_time_us = pipeline.oldest_watermark_us() or self._network.begin_us
        self._samples.append((now_s, read, event_time_us))
        rate, pace = self._rates(now_s)
        if ask_store and now_s - self._asked_s > STORE_EVERY_S:
            self._asked_s = now_s
            self._skill = skill_rows(self._history.skill())
            hooks = self._daemon.config.hooks
            self._actions = [row for hook in hooks for row in self._history.firings(hook=hook, limit=ACTIONS_READ)]
        return Snapshot(
            daemon.phase,
            now_s - self._started_s,
            self._network.progress,
            event_time_us,
            pace,
            read,
            tally.records,
            rate,
            max(0, self._network.written - read),
            {name: stream.config.period_s for name, stream in daemon.streams.items()},
            tally.commits,
            tally.commit_seconds / max(1, tally.commits),
            tally.forecasts,
            sum(n for (_, outcome), n in outcomes.items() if outcome == "dead"),
            [
                (
                    name,
                    stream.config.routes[0].active,
                    len(stream.table),
                    sum(n for (of, _), n in outcomes.items() if of == name),
                    stream.forecasts_by_source.tolist(),
                )
                for name, stream in daemon.streams.items()
            ],
            tally.firings,
            {kind: n for kind, n in daemon.runner.stats.items() if kind in ("applied", "skipped", "failed")},
            bool(self._history.firings(pending=True, limit=1)) if ask_store and not self._network.is_alive() else False,
            self._skill,
            self._actions,
        )

    def _rates(self, now_s: float) -> tuple[float, float]:
        old = next((sample for sample in self._samples if now_s - sample[0] <= RATE_OVER_S), self._samples[-1])
        newest = self._samples[-1]
        seconds = newest[0] - old[0]
        if seconds < 0.2:
            return 0.0, 0.0
        rate = (newest[1] - old[1]) / seconds
        self.rates.append(rate)
        return rate, (newest[2] - old[2]) / 1e6 / seconds


def status_line(seen: Snapshot) -> str:
    """The view as one line, for logs and pipes."""
    skill = "  ".join(f"{row.stream}/{row.predictor} {row.skill:+.2f}" for row in seen.skill)
    return (
        f"{seen.elapsed_s:5.0f} s  {seen.progress:4.0%}  event time {utc(seen.event_time_us)}  "
        f"{seen.durable:,} records durable ({seen.rate:,.0f}/s, lag {seen.lag:,})  "
        f"{seen.forecasts:,} forecasts  {seen.commits} commits  {seen.firings:,} actions"
        + (f"  skill: {skill}" if skill else "")
    )


class LiveView:
    """Fits the numbers of ``seen`` into the terminal as it is."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.seen = Snapshot()
        self.rates: Sequence[float] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        parts: list[RenderableType] = [self._head(width), self._streams(), self._skill(4 if width >= WIDE else 3)]
        if height >= TALL:
            parts = [part for each in parts for part in (each, Text(""))]
        used = sum(len(console.render_lines(part, options.update(height=None))) for part in parts)
        room = height - used - 3
        if room > 0:
            parts.append(self._actions(room))
        yield Group(*parts)

    def _head(self, width: int) -> Panel:
        seen = self.seen
        grid = Table.grid(padding=(0, 2), expand=True)
        for _ in range(3):
            grid.add_column(ratio=1, no_wrap=True)
        grid.add_row(
            _pair("records/s", f"{seen.rate:,.0f}", GOOD),
            _pair("event time", utc(seen.event_time_us)),
            _pair("commits", f"{seen.commits}  at {1000 * seen.commit_s:,.0f} ms"),
        )
        grid.add_row(
            _pair("durable", f"{seen.durable:,} records"),
            _pair("time lapse", f"{seen.pace:,.0f} x real time"),
            _pair("forecasts", f"{seen.forecasts:,} durable"),
        )
        grid.add_row(
            _pair("lag", f"{seen.lag:,} records"),
            _pair("series", f"{sum(row[2] for row in seen.streams):,} live"),
            _pair("dead letters", f"{seen.dead}"),
        )
        applied, skipped = seen.outcomes.get("applied", 0), seen.outcomes.get("skipped", 0)
        grid.add_row(
            _pair("actions", f"{seen.firings:,}"),
            _pair("applied", f"{applied:,}"),
            _pair("skipped by a guard", f"{skipped:,}"),
        )
        body = Group(grid, self._lines(width - 4))
        subtitle = Text(f" {seen.phase} · {seen.elapsed_s:.0f} s · Ctrl-C stops ", style=DIM)
        return Panel(
            body, title=Text(f" {self.title} ", style=TITLE), subtitle=subtitle, subtitle_align="right", box=ROUNDED
        )

    def _lines(self, width: int) -> Text:
        done = round(self.seen.progress * width)
        line = Text(sparkline(self.rates, width), style=GOOD)
        line.append("\n")
        line.append("━" * done, style=GOOD)
        line.append("━" * (width - done), style=DIM)
        return line

    def _streams(self) -> Table:
        table = _table("stream", "active", "series", "records", "forecasts of the active predictor by source")
        for column in (2, 3):
            table.columns[column].justify = "right"
        for name, active, series, records, sources in self.seen.streams:
            table.add_row(Text(name), Text(active), Text(f"{series:,}"), Text(f"{records:,}"), _sources(sources))
        return table

    def _skill(self, leads: int) -> Table:
        seen = self.seen
        head = ("skill", "predictor", "scored", "by lead time", *[""] * (leads - 1), "all", "in 80 %")
        table = _table(*head)
        for column in range(2, len(head)):
            table.columns[column].justify = "right"
        if not seen.skill:
            table.add_row(Text("no truth yet", style=DIM))
        active = {(row[0], row[1]) for row in seen.streams}
        for row in seen.skill:
            cells = [
                _skill_text(row.by_lead[lead], f"{duration(lead * seen.periods_s[row.stream])} ")
                for lead in leads_shown(sorted(row.by_lead), leads)
            ]
            cells += [Text("")] * (leads - len(cells))
            shadow = "" if (row.stream, row.predictor) in active else ", shadow"
            table.add_row(
                Text(row.stream),
                Text.assemble(row.predictor, (shadow, DIM)),
                Text(short(row.n)),
                *cells,
                _skill_text(row.skill),
                Text(f"{row.covered:.0%}"),
            )
        return table

    def _actions(self, room: int) -> Table:
        table = _table("time", "hook", "object", "set to", "outcome")
        for row in _mixed(self.seen.actions, room):
            table.add_row(
                Text(utc(row["slot_time_us"])[-8:-3]),
                Text(row["hook"]),
                Text(row["object_id"].split(",")[0], overflow="ellipsis"),
                Text(value_text(row["attribute"], row["value"]), overflow="ellipsis"),
                outcome_text(row),
            )
        return table


def _table(*columns: str) -> Table:
    table = Table(
        box=SIMPLE_HEAD, expand=True, header_style=TITLE, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False
    )
    for column in columns:
        table.add_column(Text(column), no_wrap=True)
    return table


def _pair(name: str, value: str, style: str = TITLE) -> Text:
    return Text.assemble((f"{name} ", DIM), (value, style))


def _sources(counts: Sequence[int]) -> Text:
    total = max(1, sum(counts))
    text = Text()
    for source, n in zip(Source, counts, strict=True):
        if n:
            text.append(f"{source.name.lower()} {n / total:.0%}  ", style="" if source is Source.MODEL else DIM)
    return text


def _skill_text(skill: float, before: str = "") -> Text:
    return Text.assemble((before, DIM), (f"{skill:+.2f}", GOOD if skill > 0 else BAD))


def leads_shown(leads: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of these lead times, the first and the last one among them."""
    if len(leads) <= most:
        return list(leads)
    return [leads[round(number * (len(leads) - 1) / (most - 1))] for number in range(most)]


def duration(seconds: float) -> str:
    """A lead time, short."""
    return f"{seconds / 60:g}m" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g}s"


def _mixed(actions: Sequence[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """The newest actions, but no hook may crowd the others out."""
    hooks = sorted({row["hook"] for row in actions})
    shares = [[row for row in actions if row["hook"] == hook] for hook in hooks]
    picked: list[dict[str, Any]] = []
    while len(picked) < room and any(shares):
        picked += [share.pop(0) for share in shares if share][: room - len(picked)]
    return sorted(picked, key=lambda row: (-row["slot_time_us"], row["hook"], row["object_id"]))


def value_text(attribute: str, value: Mapping[str, Any]) -> str:
    """What an action sets, in few words."""
    if attribute == "rRMPolicyRatio":
        return f"at least {value['rRMPolicyMinRatio']} % of PRBs"
    if attribute == "servingCell":
        return f"{value['source']} → {value['target']}"
    if attribute == "mcsIndex":
        return f"MCS {value['mcs_index']} of table {value['mcs_table']}"
    return ", ".join(f"{name} {part}" for name, part in value.items())


def outcome_text(row: Mapping[str, Any]) -> Text:
    """What came of an action."""
    if row["mode"] == "shadow":
        return Text("recorded (shadow)", style=DIM)
    outcomes = row["outcomes"]
    if not outcomes or outcomes[0]["kind"] is None:
        return Text("under way", style=DIM)
    kind, reason = outcomes[0]["kind"], outcomes[0]["reason"]
    return Text(f"skipped: {reason}" if kind == "skipped" else kind, style=GOOD if kind == "applied" else BAD)


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as bars, right-aligned; the highest bar is the largest of them."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0) or 1.0
    bars = "".join(BARS[min(len(BARS) - 1, max(0, int(value / top * len(BARS))))] for value in shown)
    return bars.rjust(width)


def short(number: float) -> str:
    """A count in at most five characters."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}" if number < 100 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def utc(time_us: int) -> str:
    """Day and time, UTC."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
