"""The HTML report of ``netpredict evaluate bandwidth``: one file that needs no network, the answer first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from netpredict.evaluate.bandwidth_result import Evaluation, Example, PeriodResult, Result
from netpredict.evaluate.bootstrap import Estimate
from netpredict.evaluate.frame import (
    AXIS,
    TRUTH,
    Figure,
    Frame,
    facts,
    grid,
    header,
    legend,
    number,
    percent,
    row,
    section,
    table,
    utc,
)

OURS, PLAIN = "#0072b2", "#d55e00"
BY_COST = ("#56b4e9", "#0072b2", "#0b3d91")
HEADS = ("lead", "under : over", "best plain rule", "its cost", "ours", "change", "95 % interval", "delayed", "as set",
         "covered", "usual rules", "in hindsight")  # fmt: skip


def write_report(said: Evaluation) -> str:
    """The whole page as text."""
    frame = Frame()
    return frame.page(f"netpredict evaluate bandwidth: {said.dataset}", _body(said, frame))


def _body(said: Evaluation, frame: Frame) -> Iterator[str]:
    yield _header(said)
    yield legend([("ours", OURS), ("best plain rule", PLAIN), ("demand", TRUTH)])
    for period in said.periods:
        title = f"{escape(period.period)}: {utc(period.from_us)} to {utc(period.until_us)}"
        panels = [_changes(said, frame, period), _mean_changes(frame, period)]
        yield from section(title, CHANGES_NOTE, [grid(panels), _table(said, period)])
        yield from section("What was provided", EXAMPLE_NOTE, [grid(_examples(said, frame, period))])
        yield from section("Day by day", DAILY_NOTE, [grid(_daily(said, frame, period))])
    yield from section("How it was done", HOW_NOTE, [_facts(said)])


def _header(said: Evaluation) -> str:
    worst = max((each for period in said.periods for each in period.overall), key=lambda each: each.sooner.value)
    best = min((each for period in said.periods for each in period.overall), key=lambda each: each.sooner.value)
    cheaper = all(each.sooner.value < 0 for period in said.periods for each in period.overall)
    span = f"{_signed(best.sooner.value)} to {_signed(worst.sooner.value)}"
    answer = f"Reserving by forecast changes the cost by {span}"
    why = (
        f"Beside the plain rule that was cheapest before, chosen anew for each lead and ratio of costs. "
        f"{'It is cheaper at every lead.' if cheaper else 'It is not cheaper at every lead.'}"
    )
    tiles = [
        (f"{period.period}, {each.lead}", _signed(each.sooner.value), f"95 %: {_interval(each.sooner)}")
        for period in said.periods
        for each in period.overall
    ]
    return header(f"netpredict evaluate bandwidth · {said.dataset} · {said.kpi}", answer, why, tiles)


def _changes(said: Evaluation, frame: Frame, period: PeriodResult) -> str:
    figure = frame.figure("lead", "change of cost (%)")
    for colour, c_under in zip(BY_COST, said.costs, strict=True):
        found = [result for result in period.results if result.c_under == c_under]
        _dots(figure, f"{c_under:g} : 1", colour, [r.lead for r in found], [r.sooner.change for r in found])
    figure.add_hline(0.0, line={"color": AXIS, "width": 1, "dash": "dot"})
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12}, scattermode="group")
    return frame.panel("change of cost against the best plain rule, by ratio of costs", figure)


def _mean_changes(frame: Frame, period: PeriodResult) -> str:
    figure = frame.figure("lead", "change of cost (%)")
    leads = [each.lead for each in period.overall]
    _dots(figure, "at once", OURS, leads, [each.sooner for each in period.overall])
    _dots(figure, "delayed", "#7a7a7a", leads, [each.late for each in period.overall])
    figure.add_hline(0.0, line={"color": AXIS, "width": 1, "dash": "dot"})
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12}, scattermode="group")
    return frame.panel("mean of the ratios, decided at once and with the daemon's delay", figure)


def _dots(figure: Figure, name: str, colour: str, leads: list[str], found: list[Estimate]) -> None:
    figure.add_scatter(
        x=leads,
        y=[100 * each.value for each in found],
        error_y={
            "type": "data",
            "array": [100 * (each.high - each.value) for each in found],
            "arrayminus": [100 * (each.value - each.low) for each in found],
            "width": 4,
        },
        mode="markers",
        marker={"size": 9, "color": colour},
        name=name,
    )


def _table(said: Evaluation, period: PeriodResult) -> str:
    return table(HEADS, [_row(result) for result in period.results])


def _row(result: Result) -> str:
    sooner = result.sooner
    columns = [
        f"{result.c_under:g} : 1",
        escape(result.plain),
        number(sooner.plain_cost),
        number(sooner.cost),
        f"<b>{_signed(sooner.change.value)}</b>",
        _interval(sooner.change),
        _signed(result.late.change.value),
        f"{_signed(result.as_set.change.value)}, {result.actions_per_day:.3g} actions a day",
        f"{percent(result.covered)}, plain {percent(result.plain_covered)}",
        f"{_signed(result.usual.change.value)} ({escape(result.usual_plain)})",
        f"{_signed(result.hindsight.change.value)} ({escape(result.hindsight_plain)})",
    ]
    return row(result.lead, columns)


def _examples(said: Evaluation, frame: Frame, period: PeriodResult) -> Iterator[str]:
    for example in period.examples:
        title = f"{example.series}, {example.lead} ahead, {example.c_under:g} : 1"
        yield frame.panel(title, _provided(said, frame, example), wide=True)


def _provided(said: Evaluation, frame: Frame, example: Example) -> Figure:
    figure = frame.figure("UTC", f"{said.kpi} ({said.unit})" if said.unit else said.kpi)
    times = [datetime.fromtimestamp(each / 1e6, UTC).isoformat() for each in example.time_us]
    lines = (("demand", example.demand, TRUTH), ("best plain rule", example.plain, PLAIN), ("ours", example.ours, OURS))
    for name, values, colour in lines:
        line = {"color": colour, "width": 1.6, "shape": "linear" if name == "demand" else "hvh"}
        figure.add_scatter(x=times, y=values, name=name, mode="lines", line=line)
    return figure


def _daily(said: Evaluation, frame: Frame, period: PeriodResult) -> Iterator[str]:
    for result in period.results:
        if result.c_under == said.costs[1]:
            figure = frame.figure("day of the period", "cost of ours, % of the plain rule's")
            share = [100 * ours / plain if plain else None for ours, plain in result.daily]
            figure.add_bar(x=list(range(1, len(share) + 1)), y=share, marker={"color": OURS})
            figure.add_hline(100.0, line={"color": PLAIN, "width": 1.5})
            figure.update_xaxes(dtick=1)
            yield frame.panel(f"{result.lead} ahead, {result.c_under:g} : 1", figure)


def _facts(said: Evaluation) -> str:
    sooner, late = said.decision_delay_ms
    told = [
        ("series", f"{said.series}, on a grid of {said.period_s:g} s"),
        ("ours", f"{said.predictor}, trained before each period; its calibrated quantile at under / (under + over)"),
        ("options", json.dumps(dict(said.options))),
        ("plain rules", "last value, EWMA, rolling quantiles and maxima, seasons, each with factors and sums"),
        ("chosen", "the cheapest on the training part, by lead and ratio; its margin is exact, not of a grid"),
        ("delayed", f"decisions {late:,} ms after the end of a step instead of {sooner}; the plain rule needs none"),
        ("as set", "both by the bandwidth hook on its ladder of whole percents of the resource blocks"),
        (
            "usual rules",
            "against the best of those in many a network: a factor on a rolling quantile or a season",
        ),
        ("in hindsight", "against the rule that turned out cheapest in the period itself, which nobody could choose"),
        ("intervals", "bootstrap: whole series and whole days are drawn; only days where there is one series"),
        ("training", ", ".join(f"{period.period} {period.training_s:g} s" for period in said.periods)),
    ]
    return facts(told)


def _signed(ratio: float) -> str:
    return f"{100 * ratio:+.1f} %"


def _interval(found: Estimate) -> str:
    return f"{100 * found.low:+.1f} .. {100 * found.high:+.1f} %"


CHANGES_NOTE = (
    "Cost of ours over that of the best plain rule, less one: below zero the forecast pays. The bars are 95 % "
    "intervals. Costs are means of a step and series."
)
EXAMPLE_NOTE = (
    "The middle of the period, of the series whose own change is the usual one. What is set stands for a step."
)
DAILY_NOTE = "The same comparison for each day of the period; the line is the plain rule."
HOW_NOTE = "Nothing of a period is trained, tuned, chosen or calibrated on before it is scored."
