"""The HTML report of ``netpredict evaluate handover --dataset wmnlab``: one file, the answer first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from netpredict.evaluate.frame import AXIS, TRUTH, Figure, Frame, grid, header, legend, row, section, table
from netpredict.evaluate.handover_real_result import AlarmRow, Curves, PingPongRow, Result, Span, WarningRow
from netpredict.evaluate.handover_real_warning import AIMED_PRECISION

OURS, PLAIN = "#0072b2", "#d55e00"
KIND_COLOURS = {"rlf": "#b2182b", "handover": "#0072b2", "nr_handover": "#009e73"}
PING_PONG_HEADS = ("at the outage of", "outage", "delay", "plain A3, ping-pongs/min", "ours", "change", "95 %",
                   "plain, handovers/min", "ours", "outage at equal handovers", "95 %")  # fmt: skip
AUC_HEADS = ("event", "ahead", "positives", "seconds", "AUC within", "95 %", "AUC in that second", "95 %")
SHOWN_OUTAGE = 0.12
LINKED_NOTE = (
    "The recording has no identity of radio cells: they were told apart by the continuity of their levels, liberally "
    "and conservatively. All of this is approximate. Both curves are of settings chosen on other runs; plain A3 has "
    "its whole grid of offset, time to trigger and filter coefficient."
)
ALARM_NOTE = (
    "Counted per failure and per alarm: an alarm stands for the horizon, and is true if a failure comes in that time. "
    "The curve shows all folds at one bar; the dots are by the lowest bar that gave at most one false alarm in "
    f"10 minutes, and at least {AIMED_PRECISION:.0%} true ones, on the other folds."
)
AUC_NOTE = (
    "Area under the receiver's curve, 95 % intervals by drawing whole runs. Seconds with such an event of their own "
    "are left out, and so are the first 8 s of a drive."
)


def write_report(result: Result) -> str:
    """The whole page as text."""
    frame = Frame()
    return frame.page("netpredict evaluate handover: wmnlab", _body(result, frame))


def _body(result: Result, frame: Frame) -> Iterator[str]:
    yield _header(result)
    yield legend([("ours", OURS), ("plain A3", PLAIN), ("the network in the recording", TRUTH)])
    for each in result.curves:
        rows = [found for found in result.ping_pongs if found.linking == each.linking]
        panels = [_ping_pongs(frame, each), _handovers(frame, each)]
        title = f"Linked in the {escape(each.linking)} way: {each.radio_cells_per_min:.1f} radio cells a minute"
        yield from section(title, LINKED_NOTE, [grid(panels), table(PING_PONG_HEADS, map(_ping_pong_row, rows))])
    if result.warnings:
        yield from section("Early warning", AUC_NOTE, [_aucs(frame, result.warnings), _auc_table(result.warnings)])
    for found in result.alarms:
        yield from section("Alarms of radio-link failure", ALARM_NOTE, [grid([_alarms(frame, found)])])


def _header(result: Result) -> str:
    tiles = []
    for each in result.curves:
        first = next(found for found in result.ping_pongs if found.linking == each.linking)
        note = f"95 %: {_interval(first.change)}, at {first.outage_ratio:.1%} outage"
        tiles.append((f"ping-pongs, {each.linking} linking", _signed(first.change.value), note))
    tiles += [
        (f"failure within {each.ahead_s} s, AUC", f"{each.within.value:.3f}", f"95 %: {_plain_interval(each.within)}")
        for each in result.warnings
        if each.event == "rlf"
    ]
    for found in result.alarms:
        note = f"precision {found.precision.value:.1%}, {found.chosen.false_alarms_per_10_min:.2f} false in 10 minutes"
        tiles.append(("failures with an alarm before them", f"{found.recall.value:.1%}", note))
    answer = "Ping-pongs at the outage of the usual plain rule, and radio-link failures foreseen"
    why = (
        f"{result.drives} drives of {result.runs} runs in {result.folds} folds over runs. A ping-pong is a return "
        f"within {result.ping_pong_s} s; outage is a second more than 6 dB below the best radio cell."
    )
    return header("netpredict evaluate handover · wmnlab", answer, why, tiles)


def _ping_pongs(frame: Frame, each: Curves) -> str:
    figure = frame.figure("outage (% of the seconds)", "ping-pongs a minute")
    for name, points, colour in (("plain A3", each.plain, PLAIN), ("ours", each.ours, OURS)):
        shown = sorted((point for point in points if point.outage_ratio < SHOWN_OUTAGE), key=lambda p: p.outage_ratio)
        x = [100 * point.outage_ratio for point in shown]
        figure.add_scatter(x=x, y=[p.ping_pongs_per_min for p in shown], name=name, line={"color": colour})
    _recorded(figure, 100 * each.recorded.outage_ratio, each.recorded.ping_pongs_per_min)
    figure.update_yaxes(type="log")
    return frame.panel("ping-pongs over outage", figure)


def _handovers(frame: Frame, each: Curves) -> str:
    figure = frame.figure("handovers a minute", "outage (% of the seconds)")
    for name, points, colour in (("plain A3", each.plain, PLAIN), ("ours", each.ours, OURS)):
        shown = sorted(
            (point for point in points if point.outage_ratio < SHOWN_OUTAGE), key=lambda p: p.handovers_per_min
        )
        y = [100 * point.outage_ratio for point in shown]
        figure.add_scatter(x=[p.handovers_per_min for p in shown], y=y, name=name, line={"color": colour})
    _recorded(figure, each.recorded.handovers_per_min, 100 * each.recorded.outage_ratio)
    return frame.panel("outage over handovers", figure)


def _recorded(figure: Figure, x: float, y: float) -> None:
    figure.add_scatter(x=[x], y=[y], name="recorded", mode="markers", marker={"color": TRUTH, "size": 9})


def _ping_pong_row(each: PingPongRow) -> str:
    cells = (
        *(f"{each.outage_ratio:.2%}", f"+{each.decision_delay_ms} ms"),
        *(f"{rates.ping_pongs_per_min:.3f}" for rates in (each.plain, each.ours)),
        *(f"<b>{_signed(each.change.value)}</b>", _interval(each.change)),
        *(f"{rates.handovers_per_min:.2f}" for rates in (each.plain, each.ours)),
        *(_signed(each.outage_change.value), _interval(each.outage_change)),
    )
    return row(each.at, cells)


def _aucs(frame: Frame, rows: Sequence[WarningRow]) -> str:
    panels = []
    for title, field in (("within so many seconds", "within"), ("in exactly that second", "exactly")):
        figure = frame.figure("seconds ahead", "AUC")
        for kind, colour in KIND_COLOURS.items():
            mine = [each for each in rows if each.event == kind]
            spans = [getattr(each, field) for each in mine]
            error = {
                "type": "data",
                "array": [span.high - span.value for span in spans],
                "arrayminus": [span.value - span.low for span in spans],
            }
            x, y = [each.ahead_s for each in mine], [span.value for span in spans]
            figure.add_scatter(x=x, y=y, error_y=error, name=kind.replace("_", " "), line={"color": colour})
        figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
        panels.append(frame.panel(title, figure))
    return grid(panels)


def _auc_table(rows: Sequence[WarningRow]) -> str:
    return table(AUC_HEADS, map(_auc_row, rows))


def _auc_row(each: WarningRow) -> str:
    cells = (
        *(f"{each.ahead_s} s", f"{each.positives:,}", f"{each.seconds:,}"),
        *(f"<b>{each.within.value:.4f}</b>", _plain_interval(each.within)),
        *(f"{each.exactly.value:.4f}", _plain_interval(each.exactly)),
    )
    return row(each.event.replace("_", " "), cells)


def _alarms(frame: Frame, each: AlarmRow) -> str:
    figure = frame.figure("false alarms in 10 minutes", "share (%)")
    shown = [point for point in each.curve if point.false_alarms_per_10_min < 5]
    x = [point.false_alarms_per_10_min for point in shown]
    figure.add_scatter(x=x, y=[100 * point.recall for point in shown], name="recall", line={"color": OURS})
    figure.add_scatter(x=x, y=[100 * point.precision for point in shown], name="precision", line={"color": PLAIN})
    dot = {"mode": "markers", "marker": {"color": TRUTH, "size": 9}, "name": "chosen on other folds"}
    chosen = each.chosen
    figure.add_scatter(x=2 * [chosen.false_alarms_per_10_min], y=[100 * chosen.recall, 100 * chosen.precision], **dot)
    figure.add_vline(1.0, line={"color": AXIS, "width": 1, "dash": "dot"})
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    return frame.panel(f"{each.events} failures, alarms for {each.horizon_s} s", figure)


def _interval(span: Span) -> str:
    return f"{_signed(span.low)} … {_signed(span.high)}"


def _plain_interval(span: Span) -> str:
    return f"{span.low:.3f} … {span.high:.3f}"


def _signed(ratio: float) -> str:
    return f"{100 * ratio:+.1f} %"
