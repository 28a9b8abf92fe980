"""The HTML report of ``netpredict evaluate mcs``: one file that needs no network, the answer first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from netpredict.evaluate.frame import AXIS, Figure, Frame, grid, header, legend, row, section, table
from netpredict.evaluate.goodput import BLER_LIMIT, TRACE_BLER_LIMIT
from netpredict.evaluate.mcs_result import Outcome, Result, Row

OURS, PLAIN, TABLE_TWO = "#0072b2", "#7a7a7a", "#d55e00"
HEADS = ("rule", "goodput, bit/s/Hz", "BLER", "traces above 12 %", "chosen in the folds")
GAIN_NOTE = "Goodput over that of the best plain rule; 95 % intervals by a bootstrap over traces."
ERRORS_NOTE = (
    f"CQI table 1, with a limit. Dotted: {TRACE_BLER_LIMIT:.0%}, which 15 % of the traces may pass; pooled: "
    f"{BLER_LIMIT:.0%}."
)
FITNESS_NOTE = "Cross-entropy of the CQI that came, in nats: lower is better."


def write_report(result: Result) -> str:
    """The whole page as text."""
    frame = Frame()
    return frame.page("netpredict evaluate mcs", _body(result, frame))


def _body(result: Result, frame: Frame) -> Iterator[str]:
    now = [each for each in result.rows if each.decision_delay_ms == 0]
    limited = [each for each in now if each.bler_limit is not None]
    free = [each for each in now if each.bler_limit is None]
    yield _header(result, limited, free)
    yield legend([("the hook", OURS), ("best plain rule, table by last report", PLAIN)])
    panels = (_gains(frame, title, rows) for title, rows in (("BLER at most 10 %", limited), ("no limit", free)))
    yield from section("Gain by reporting delay", GAIN_NOTE, [grid(panels)])
    errors = (_errors(frame, each) for each in limited if each.cqi_table == 1)
    yield from section("Block errors, trace by trace", ERRORS_NOTE, [grid(errors)])
    yield from section("What the forecast is worth", FITNESS_NOTE, [grid([_fitness(frame, result)])])
    for each in result.rows:
        yield from section(_title(each), f"{_gain(each.gain)}, 95 %: {_interval(each)}", [_table(each)])


def _header(result: Result, limited: Sequence[Row], free: Sequence[Row]) -> str:
    answer = f"{_span(limited)} goodput over the best plain rule at a BLER of 10 %"
    why = (
        f"Without a limit on BLER {_span(free)}. Reports come 1 to 5 s late. The plain rules were chosen from their "
        "whole grids on traces that are not scored, and so was the hook's price of a lost block."
    )
    tiles = [
        (f"{each.delay_s} s late, BLER at most 10 %", _gain(each.gain), f"95 %: {_interval(each)}")
        for each in limited
        if each.cqi_table == 1
    ]
    return header(f"netpredict evaluate mcs · {result.traces} traces, {result.folds} folds", answer, why, tiles)


def _gains(frame: Frame, title: str, rows: Sequence[Row]) -> str:
    figure = frame.figure("reporting delay (s)", "gain of goodput (%)")
    for number, colour in ((1, OURS), (2, TABLE_TWO)):
        mine = [each for each in rows if each.cqi_table == number]
        figure.add_scatter(
            x=[each.delay_s for each in mine],
            y=[100 * each.gain for each in mine],
            error_y={
                "type": "data",
                "array": [100 * (each.gain_high - each.gain) for each in mine],
                "arrayminus": [100 * (each.gain - each.gain_low) for each in mine],
            },
            name=f"CQI table {number}",
            line={"color": colour},
        )
    figure.add_hline(0.0, line={"color": AXIS, "width": 1, "dash": "dot"})
    return frame.panel(title, _told(figure))


def _errors(frame: Frame, each: Row) -> str:
    figure = frame.figure("traces, by rising BLER", "BLER (%)")
    pairs = (("the hook", each.ours_bler_by_trace, OURS), ("best plain rule", each.plain_bler_by_trace, PLAIN))
    for name, ratios, colour in pairs:
        figure.add_scatter(y=[100 * ratio for ratio in sorted(ratios)], name=name, line={"color": colour})
    figure.add_hline(100 * TRACE_BLER_LIMIT, line={"color": AXIS, "width": 1, "dash": "dot"})
    return frame.panel(f"{each.delay_s} s late: {each.plain.name}", _told(figure))


def _fitness(frame: Frame, result: Result) -> str:
    figure = frame.figure("reporting delay", "nats")
    delays = [f"{each.delay_s} s" for each in result.fitness]
    figure.add_bar(x=delays, y=[e.log_loss for e in result.fitness], name="forecast", marker={"color": OURS})
    table_losses = [each.markov_log_loss for each in result.fitness]
    figure.add_bar(x=delays, y=table_losses, name="table by last report", marker={"color": PLAIN})
    return frame.panel("cross-entropy", _told(figure))


def _told(figure: Figure) -> Figure:
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})


def _title(each: Row) -> str:
    limit = "BLER at most 10 %" if each.bler_limit else "no limit on BLER"
    late = f", decided {each.decision_delay_ms} ms late" if each.decision_delay_ms else ""
    return f"{each.delay_s} s, CQI table {each.cqi_table}, {limit}{late}"


def _table(each: Row) -> str:
    rows = [_line("the hook", each.ours, OURS), _line("best plain rule", each.plain, PLAIN)]
    rows.append(_line("the hook's policy on the table by last report", each.same_policy_by_table))
    return table(HEADS, rows + [_line(outcome.name, outcome) for outcome in each.families])


def _line(name: str, outcome: Outcome, colour: str = "") -> str:
    chosen = escape("; ".join(dict.fromkeys(outcome.settings)))
    cells = (f"{outcome.goodput:.4f}", f"{outcome.bler:.2%}", f"{outcome.traces_above_ratio:.0%}", chosen)
    return row(name, cells, colour)


def _span(rows: Sequence[Row]) -> str:
    return f"{_gain(min(each.gain for each in rows))} to {_gain(max(each.gain for each in rows))}"


def _interval(each: Row) -> str:
    return f"{_gain(each.gain_low)} to {_gain(each.gain_high)}"


def _gain(ratio: float) -> str:
    return f"{100 * ratio:+.1f} %"
