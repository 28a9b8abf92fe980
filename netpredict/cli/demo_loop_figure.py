"""The one picture of the closed loop: outage, PRBs and goodput, with netpredict and without."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netpredict.cli.demo_figures import BLACK, BLUE, GREY, ORANGE, show_clock
from netpredict.cli.demo_loop import STATIC, Loop, shown_kpis
from netpredict.traces.controlled import Account
from netpredict.traces.plain_rules import STAY_PERIODS
from netpredict.types import AnyArray

FILE = "closed-loop.png"
BIN_S = 15
NOTE_CHARACTERS = 190
"""Of a line below the picture."""


def draw(folder: Path, loop: Loop) -> Path:
    """Write the picture into a folder."""
    figure = Figure(figsize=(12.0, 10.8), layout="constrained")
    figure.suptitle(
        "Closed loop: netpredict acts on a simulated network, beside the same network without it", fontweight="bold"
    )
    grid = figure.subplots(3, 2, width_ratios=(2.1, 1))
    for draw_row, row in zip((_prbs, _outage, _goodput), grid, strict=True):
        draw_row(row[0], row[1], loop)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, axis="y", color="#E6E6E6", linewidth=0.7)
        axes.set_axisbelow(True)
    figure.supxlabel(_note(loop), fontsize=8.5, ha="left", x=0.01)
    FigureCanvasAgg(figure)
    path = folder / FILE
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path


def _runs(loop: Loop) -> tuple[tuple[str, Account, str, str], ...]:
    return (
        ("without: static", loop.static, GREY, ":"),
        ("without: plain rules", loop.plain, ORANGE, "--"),
        ("with netpredict", loop.ours, BLUE, "-"),
    )


def _prbs(left: Any, right: Any, loop: Loop) -> None:
    demand = loop.plain.columns("prb")
    left.plot(_times(demand["event_time_us"]), demand["demand"], color=BLACK, linewidth=1.2, label="demand")
    for label, account, color, style in _runs(loop):
        columns = account.columns("prb")
        left.plot(
            _times(columns["event_time_us"]), columns["provisioned"], style, color=color, linewidth=1.4, label=label
        )
    _labelled(
        left, "Resource blocks: hook bandwidth", "PRBs provisioned, % of a carrier,\nmean over radio cells", "%H:%M"
    )
    names = ("over_provisioned_prb_percent", "unserved_prb_percent", "prb_cost_percent")
    labels = ("over-provisioned", "not served", "cost, unserved\n4 times as dear")
    _bars(right, loop, names, labels, "% of a carrier, mean")


def _outage(left: Any, right: Any, loop: Loop) -> None:
    for label, account, color, style in _runs(loop):
        columns = account.columns("links")
        left.step(
            _times(columns["event_time_us"]),
            np.cumsum(columns["outage"]),
            style,
            color=color,
            linewidth=1.6,
            where="post",
            label=label,
        )
    _labelled(left, "Outage: hook handover", "UE-seconds in outage so far")
    _bars(
        right, loop, ("outage_ratio",), ("UE-seconds below Qout\nor with a failed handover",), "% of UE-seconds", 100.0
    )


def _goodput(left: Any, right: Any, loop: Loop) -> None:
    for label, account, color, style in _runs(loop):
        columns = account.columns("links")
        bins = len(columns["goodput"]) // BIN_S
        mean = columns["goodput"][: bins * BIN_S].reshape(bins, BIN_S).mean(axis=1) / account.ues
        left.plot(_times(columns["event_time_us"])[: bins * BIN_S : BIN_S], mean, style, color=color, label=label)
    _labelled(left, "Goodput: hook mcs", f"goodput of a UE, bit/s/Hz,\nmean over {BIN_S} s")
    left.set_xlabel(f"event time on {_times(columns['event_time_us'][:1])[0]:%Y-%m-%d}, UTC")
    _bars(right, loop, ("goodput_bps_hz",), ("mean over UEs",), "bit/s/Hz")


def _labelled(axes: Any, title: str, unit: str, clock: str = "%H:%M:%S") -> None:
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_ylabel(unit)
    show_clock(axes, clock)
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), high + 0.2 * (high - min(0.0, low)))
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize="small")


def _bars(
    axes: Any, loop: Loop, names: tuple[str, ...], labels: tuple[str, ...], unit: str, scale: float = 1.0
) -> None:
    plain, ours = loop.plain.kpis(), loop.ours.kpis()
    at = np.arange(len(names))
    for place, (_, account, color, _) in enumerate(_runs(loop)):
        values = [scale * account.kpis()[name] for name in names]
        hatch = ("..", "//", "")[place]
        drawn = axes.bar(at + 0.27 * (place - 1), values, 0.25, color=color, hatch=hatch, edgecolor="white")
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], fontsize=7 if len(names) > 1 else 9)
    changes = [f"{label}\n{change_text(plain[name], ours[name])}" for name, label in zip(names, labels, strict=True)]
    axes.set_xticks(at, changes, fontsize="small")
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel(unit)
    axes.set_title("changes are against the plain rules", loc="right", fontsize="small")
    axes.margins(y=0.15)


def change_text(plain: float, ours: float) -> str:
    """Relative change with its sign, or that there is nothing to compare with."""
    return f"{ours / plain - 1:+.1%}" if plain else "nothing without netpredict"


def _note(loop: Loop) -> str:
    config = loop.config
    worse = [name for name, better in shown_kpis(loop) if not better]
    lines = (
        f"{config.radio_cells} radio cells ({config.radio_cells // 3} with a capacity cell) over "
        f"{config.quiet_s / 3600:g} h; {config.ues} UEs over the last {config.session_s} s. Seed {config.seed}: same "
        f"demand, mobility, shadowing and fading in all. Quotas stay for {STAY_PERIODS} min at least.",
        f"Static: {STATIC}.",
        f"Plain rules: {loop.rules} (the best of a grid on a network of another seed).",
        f"With netpredict: {loop.predictor} forecasts load, ewma RSRP and CQI; the plain rules go on where it does not "
        "act, as in a fifth of the radio cells and UEs that it holds out.",
        f"Worse with netpredict than by plain rules: {'; '.join(worse) or 'none of these'}.",
    )
    return "\n".join(fill(line, NOTE_CHARACTERS) for line in lines)


def _times(event_time_us: AnyArray) -> list[datetime]:
    return [datetime.fromtimestamp(time_us / 1e6, UTC) for time_us in event_time_us.tolist()]
