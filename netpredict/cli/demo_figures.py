"""The figures of the demo, from its store and its trainings alone. Colours are those of Okabe and Ito."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from netpredict.cli.demo_training import Training
from netpredict.cli.demo_view import INTERVAL, skill_rows
from netpredict.config import Config, StreamConfig
from netpredict.store.history import History
from netpredict.types import AnyArray

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999",
)  # fmt: skip
OF_PREDICTOR = {"lstm": BLUE, "gru": ORANGE, "simple_rnn": GREEN}
MARKER_OF = {"lstm": "o", "gru": "s", "simple_rnn": "^"}
KPI_TEXT = {"prb_use_dl_percent": "downlink PRB use, %", "rsrp_dbm": "RSRP, dBm", "cqi": "CQI"}
FAN_HOURS = 1.5
AHEAD_STEPS = 10
BIN_S = 900
ACTIONS_MAX = 1_000_000


def draw_all(
    folder: Path, config: Config, history: History, trainings: Sequence[Training], span_us: tuple[int, int]
) -> list[Path]:
    """Draw what there is data for; gives the files."""
    skill, firings = history.skill(), history.firings(limit=ACTIONS_MAX)
    drawn = [
        _saved(folder / "forecast.png", forecast_fan(config, history)),
        _saved(folder / "skill.png", skill_by_lead(config, skill)),
        _saved(folder / "training.png", training_curves(trainings)),
        _saved(folder / "actions.png", actions_over_time(firings, span_us)),
    ]
    return [path for path in drawn if path is not None]


def _saved(path: Path, figure: Figure | None) -> Path | None:
    if figure is None:
        return None
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    return path


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)


def show_clock(axes: Any, form: str = "%H:%M") -> None:
    """The time of day below."""
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=4, maxticks=9))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter(form))  # type: ignore[no-untyped-call]


def _time(time_us: float) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def forecast_fan(config: Config, history: History) -> Figure | None:
    """One busy radio cell: forecasts as they were issued, and those of one lead time beside the truth."""
    name = "traffic"
    stream = config.streams[name]
    kpi, predictor = stream.kpis[0], stream.routes[0].active
    steps = round(FAN_HOURS * 3600 / stream.period_s)
    key = _busy_radio_cell(history, name, stream, steps)
    if key is None:
        return None
    truth_rows = history.recent_observations(name, key, limit=steps)
    first_us = truth_rows[-1]["slot_time_us"]
    times = [_time(row["slot_time_us"]) for row in truth_rows]
    truth = [row["values"][kpi] for row in truth_rows]
    issued = {
        row["slot_time_us"]: row
        for row in history.forecasts(name, key, predictor=predictor, from_us=first_us, limit=steps)
        if row["sources"][kpi] == "model"
    }
    if not issued:
        return None
    figure = _figure(10.5, 7.2)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(f"Radio cell {key}: {KPI_TEXT[kpi].split(',')[0]}, forecast by {predictor}", fontweight="bold")
    minutes = stream.period_s / 60
    _fans(above, stream, kpi, issued, first_us)
    above.set_title(f"as issued, one {stream.horizon_steps * minutes:g}-minute forecast after the other", loc="left")
    _one_lead(below, stream, kpi, issued)
    below.set_title(f"{AHEAD_STEPS * minutes:g} minutes ahead, against what came and against naive", loc="left")
    for axes in (above, below):
        axes.plot(times, truth, color=BLACK, linewidth=1.2, label="measured", zorder=5)
        axes.set_ylabel(KPI_TEXT[kpi])
        axes.margins(x=0.01)
        _tidy(axes)
        axes.legend(loc="upper left", ncols=4, frameon=False)
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low), high + 0.18 * (high - low))
        axes.set_yticks([tick for tick in axes.get_yticks() if max(0.0, low) <= tick <= 100])
    show_clock(below)
    below.set_xlabel(f"event time on {times[0]:%Y-%m-%d}, UTC")
    return figure


def _busy_radio_cell(history: History, name: str, stream: StreamConfig, steps: int) -> str | None:
    """A radio cell that is loaded, moves, and is not full: there is something to forecast."""
    kpi = stream.kpis[0]
    period_us = round(stream.period_s * 1e6)
    seen = history.observations(name, [kpi], period_us, round(stream.phase_s * 1e6), steps=steps, series_max=100_000)
    if not seen.keys:
        return None
    load = seen.values[:, :, 0]
    whole = np.isfinite(load).mean(axis=1)
    load = np.where(np.isfinite(load), load, 0.0)
    full = (load >= 99).mean(axis=1) > 0.02
    worth = load.mean(axis=1) + load.std(axis=1) - 1000 * full - 1000 * (whole < whole.max())
    return seen.keys[int(np.argmax(worth))]


def _fans(axes: Any, stream: StreamConfig, kpi: str, issued: Mapping[int, dict[str, Any]], first_us: int) -> None:
    period_us = round(stream.period_s * 1e6)
    label: dict[str, Any] = {"band": "10 % to 90 %", "median": "median"}
    for time_us in range(first_us, max(issued) + 1, stream.horizon_steps * period_us):
        row = issued.get(time_us)
        if row is None:
            continue
        values = np.array([[row["observed"][kpi]] * len(row["levels"]), *row["values"][kpi]], dtype=float)
        at = [_time(time_us + step * period_us) for step in range(len(values))]
        low, middle, high = _levels(row["levels"], values)
        axes.fill_between(at, low, high, color=SKY, alpha=0.45, linewidth=0, label=label.pop("band", None))
        axes.plot(at, middle, color=BLUE, linewidth=1.6, label=label.pop("median", None))
        axes.plot(at[:1], middle[:1], "o", color=BLUE, markersize=4, label=label.pop("issued", None))


def _one_lead(axes: Any, stream: StreamConfig, kpi: str, issued: Mapping[int, dict[str, Any]]) -> None:
    lead = min(AHEAD_STEPS, stream.horizon_steps)
    rows = [issued[time_us] for time_us in sorted(issued)]
    values = np.array([row["values"][kpi][lead - 1] for row in rows], dtype=float)
    at = [_time(row["slot_time_us"] + lead * round(stream.period_s * 1e6)) for row in rows]
    low, middle, high = _levels(rows[0]["levels"], values)
    axes.fill_between(at, low, high, color=SKY, alpha=0.45, linewidth=0, label="10 % to 90 %")
    axes.plot(at, middle, color=BLUE, linewidth=1.6, label="median")
    axes.plot(at, [row["observed"][kpi] for row in rows], color=RED, linewidth=1.2, linestyle=":", label="naive")


def _levels(levels: Sequence[float], values: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    return tuple(values[:, int(np.argmin([abs(level - wanted) for level in levels]))] for wanted in (0.1, 0.5, 0.9))  # type: ignore[return-value]


def skill_by_lead(config: Config, rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Skill against naive and coverage by lead time, stream by stream."""
    skill = skill_rows(rows)
    names = [name for name in config.streams if any(row.stream == name for row in skill)]
    if not names:
        return None
    figure = _figure(4.0 * len(names), 6.2)
    figure.suptitle("How good were the forecasts? Scored live, as the truth arrived", fontweight="bold")
    grid = figure.subplots(2, len(names), squeeze=False, sharex="col", sharey="row")
    for column, name in enumerate(names):
        stream = config.streams[name]
        above, below = grid[0][column], grid[1][column]
        for row in skill:
            if row.stream == name:
                _lines(above, below, stream, row.predictor, rows)
        above.axhline(0, color=BLACK, linewidth=1)
        below.axhline(0.8, color=BLACK, linewidth=1)
        above.set_title(f"{name}: {KPI_TEXT[stream.kpis[0]]}", loc="left", fontsize="medium")
        below.set_xlabel(f"lead time, {_unit(stream)[1]}")
        for axes in (above, below):
            _tidy(axes)
        above.legend(frameon=False, loc="best")
    grid[0][0].set_ylabel("skill = 1 − MAE / MAE of naive\n(above 0: better than naive)")
    grid[1][0].set_ylabel("truths between the levels\n0.1 and 0.9 (wanted: 80 %)")
    grid[1][0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    grid[1][0].set_ylim(0.6, 1.0)
    return figure


def _lines(above: Any, below: Any, stream: StreamConfig, predictor: str, rows: Sequence[Mapping[str, Any]]) -> None:
    mine = [
        row
        for row in rows
        if row["source"] == "model"
        and row["predictor"] == predictor
        and row["kpi"] == stream.kpis[0]
        and row["stream"] == stream.schema
        and row["skill"] is not None
    ]
    leads = np.array([row["lead_steps"] for row in mine]) * _unit(stream)[0]
    style = {"color": OF_PREDICTOR[predictor], "marker": MARKER_OF[predictor], "markersize": 4, "linewidth": 1.6}
    active = predictor == stream.routes[0].active
    label = f"{predictor}, active" if active else f"{predictor}, shadow"
    above.plot(leads, [row["skill"] for row in mine], label=label, linestyle="-" if active else "--", **style)
    covered = [row["coverage"].get(INTERVAL, np.nan) for row in mine]
    below.plot(leads, covered, linestyle="-" if active else "--", **style)


def _unit(stream: StreamConfig) -> tuple[float, str]:
    return (stream.period_s / 60, "minutes") if stream.period_s >= 60 else (stream.period_s, "seconds")


def training_curves(trainings: Sequence[Training]) -> Figure | None:
    """The losses of the three networks on the same traffic, and what every training took."""
    if not trainings:
        return None
    figure = _figure(11.0, 4.4)
    figure.suptitle("Training, before the daemon started", fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for training in trainings:
        if training.stream != "traffic":
            continue
        style = {"color": OF_PREDICTOR[training.predictor], "marker": MARKER_OF[training.predictor], "markersize": 4}
        epochs = range(1, len(training.loss) + 1)
        left.plot(epochs, _numbers(training.validation_loss), label=f"{training.predictor}, validation", **style)
        left.plot(epochs, _numbers(training.loss), label=f"{training.predictor}, training", linestyle=":", **style)
    left.set_title("traffic: three networks, same history", loc="left", fontsize="medium")
    left.set_xlabel("train_epoch")
    left.set_ylabel("pinball loss, in units of the series' scale")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False, fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    _tidy(left)
    shown = list(reversed(trainings))
    bars = right.barh(
        [f"{training.stream}\n{training.predictor}" for training in shown],
        [training.seconds for training in shown],
        color=[OF_PREDICTOR[training.predictor] for training in shown],
        height=0.65,
    )
    texts = [f" {t.seconds:.1f} s, {len(t.loss)} epochs, skill {t.skill:+.2f}" for t in shown]
    right.bar_label(bars, texts, fontsize="small")
    right.set_xlim(0, 1.55 * max(training.seconds for training in shown))
    right.set_xlabel("training time on one core, s")
    right.set_title("time, and skill on the held-out last fifth", loc="left", fontsize="medium")
    _tidy(right)
    right.grid(False, axis="y")
    return figure


def _numbers(losses: Sequence[float | None]) -> list[float]:
    return [float("nan") if loss is None else loss for loss in losses]


def actions_over_time(firings: Sequence[Mapping[str, Any]], span_us: tuple[int, int]) -> Figure | None:
    """What each hook decided over the simulated time, by what came of it."""
    hooks = sorted({row["hook"] for row in firings})
    if not hooks:
        return None
    figure = _figure(10.5, 1.0 + 2.2 * len(hooks))
    figure.suptitle("Actions of the hooks, by what came of them", fontweight="bold")
    grid = figure.subplots(len(hooks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, hook in zip(grid, hooks, strict=True):
        mine = [row for row in firings if row["hook"] == hook]
        counts: dict[str, Counter[int]] = {}
        for row in mine:
            counts.setdefault(outcome_of(row), Counter())[row["slot_time_us"] // 1_000_000 // BIN_S] += 1
        _stack(axes, counts)
        axes.set_title(f"{hook}: {len(mine):,}", loc="left", fontsize="medium")
        axes.set_ylabel(f"per {BIN_S // 60} min")
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        _tidy(axes)
        axes.grid(False, axis="x")
    grid[-1].set_xlim(_time(span_us[0]), _time(max(span_us[1], span_us[0] + BIN_S * 1_000_000)))
    show_clock(grid[-1])
    grid[-1].set_xlabel(f"event time on {_time(span_us[0]):%Y-%m-%d}, UTC")
    return figure


OUTCOMES = {
    "applied": (BLUE, ""),
    "recorded in shadow": (SKY, ""),
    "skipped: cooldown": (ORANGE, "///"),
    "skipped: rate": (RED, "..."),
    "skipped: superseded": (PURPLE, "---"),
    "skipped: expired": (GREY, "xxx"),
    "failed": (BLACK, ""),
    "not finished": ("#DDDDDD", ""),
}


def outcome_of(row: Mapping[str, Any]) -> str:
    """What came of a firing at its first actuator, as one of ``OUTCOMES`` or another reason to skip it."""
    if row["mode"] == "shadow":
        return "recorded in shadow"
    outcomes = row["outcomes"]
    if not outcomes or outcomes[0]["kind"] is None:
        return "not finished"
    kind, reason = outcomes[0]["kind"], outcomes[0]["reason"]
    return f"skipped: {reason}" if kind == "skipped" else str(kind)


def _stack(axes: Any, counts: Mapping[str, Counter[int]]) -> None:
    bins = sorted({number for counter in counts.values() for number in counter})
    at = [_time((number + 0.5) * BIN_S * 1e6) for number in bins]
    bottom = np.zeros(len(bins))
    for outcome in sorted(counts, key=lambda name: list(OUTCOMES).index(name) if name in OUTCOMES else 99):
        color, hatch = OUTCOMES.get(outcome, (GREY, ""))
        heights = np.array([counts[outcome][number] for number in bins], dtype=float)
        width = 0.85 * BIN_S / 86_400
        axes.bar(at, heights, width, bottom, color=color, hatch=hatch, edgecolor="white", linewidth=0, label=outcome)
        bottom += heights
