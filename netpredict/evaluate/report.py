"""The HTML report of a comparison: one file that needs no network, the answer first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from netpredict.evaluate.compare import Comparison, Entry, Example
from netpredict.evaluate.frame import (
    AXIS,
    TRUTH,
    Figure,
    Frame,
    facts,
    faint,
    finite,
    grid,
    header,
    legend,
    number,
    percent,
    row,
    seconds,
    section,
    table,
    utc,
)

COLOURS = {
    "gru": "#0072b2",
    "lstm": "#d55e00",
    "simple_rnn": "#009e73",
    "conv_lstm": "#b8860b",
    "naive": "#7a7a7a",
    "seasonal_naive": "#cc79a7",
    "drift": "#7b5ea7",
    "ewma": "#3aa6dd",
}
OTHER_COLOURS = ("#8c564b", "#17818f", "#9a9a00", "#e377c2")
UNITS_OF_TIME = ((180.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (72 * 3600.0, 3600.0, "h"), (math.inf, 86_400.0, "d"))
"""A span up to the first number of s is told in the unit of the second, named by the third."""


def write_report(comparison: Comparison) -> str:
    """The whole page as text."""
    return _Report(comparison).page()


@dataclass
class _Report:
    said: Comparison
    frame: Frame = field(default_factory=Frame)

    def __post_init__(self) -> None:
        others = iter(OTHER_COLOURS * len(self.said.entries))
        self.colour = {entry.predictor: COLOURS.get(entry.predictor) or next(others) for entry in self.said.entries}
        span_s = self.said.horizon_steps * self.said.period_s
        self.scale_s, self.time_unit = next((s, name) for most, s, name in UNITS_OF_TIME if span_s <= most)
        error_unit = "dB" if self.said.unit == "dBm" else self.said.unit
        self.unit = f" {error_unit}" if error_unit else ""
        least = min(entry.overall.pinball for entry in self.said.entries)
        self.decimals = min(6, max(0, 2 - math.floor(math.log10(least)))) if least > 0 else 2
        self.value_axis = f"{self.said.kpi}{f' ({self.said.unit})' if self.said.unit else ''}"
        self.error_axis = f"mean absolute error{f' ({error_unit})' if error_unit else ''}"
        self.trained = [entry for entry in self.said.entries if entry.loss]

    def page(self) -> str:
        return self.frame.page(f"netpredict compare: {self.said.case}", self._body())

    def _body(self) -> Iterator[str]:
        yield self._header()
        yield self._legend()
        yield from section("The predictors beside each other", self._table_note(), [self._table()])
        yield from section("Errors by lead time", LEADS_NOTE, [grid(self._lead_panels())])
        yield from section("Roll-outs against the truth", ROLLOUTS_NOTE, [grid(self._rollout_panels())])
        yield from section("One forecast with its interval", AHEAD_NOTE, [grid(self._ahead_panels())])
        if self.trained:
            yield from section("Loss by train_epoch", LOSS_NOTE, [grid(self._loss_panels())])
            yield from section("Training time", TIME_NOTE, [grid(self._time_panels())])
        yield from section("How it was done", escape(self.said.about), [self._split(), self._facts()])

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _header(self) -> str:
        said, best = self.said, self.said.entries[0]
        leads = f"{self._lead(1):g} to {self._lead(said.horizon_steps):g} {self.time_unit}"
        tiles = [
            (
                "least error",
                f"{number(best.overall.mae)}{self.unit}",
                f"naive {number(best.overall.naive_mae)}",
            ),
            ("skill against naive", percent(best.overall.skill), "100 % is perfect, 0 % as good as naive"),
            ("80 % interval covers", percent(best.overall.coverage), "before the daemon's calibration"),
        ]
        if self.trained:
            fast = min(self.trained, key=lambda entry: entry.usual_train_epoch_processor_s or math.inf)
            cost = f"{seconds(fast.usual_train_epoch_processor_s)} of processor time per train_epoch"
            tiles.append(("cheapest to train", fast.predictor, cost))
        eyebrow = f"netpredict compare · {said.case} · {said.kpi} · {leads} ahead"
        return header(eyebrow, self._answer(), self._why(), tiles)

    def _answer(self) -> str:
        said, best = self.said, self.said.entries[0]
        if best.predictor == "naive":
            return "No predictor is better than the last value"
        skill = best.overall.skill or 0.0
        against = f"{abs(skill):.1%} {'below' if skill > 0 else 'above'} naive".replace("%", " %")
        if said.verdict.second and not said.verdict.is_clear:
            return f"{best.predictor} and {said.verdict.second} are too close to call, {against}"
        return f"{best.predictor} forecasts best, its error is {against}"

    def _why(self) -> str:
        said, verdict, best = self.said, self.said.verdict, self.said.entries[0]
        parts = [f"{best.predictor} errs by {number(best.overall.mae)}{self.unit} in the mean over all lead times."]
        if verdict.second is not None and verdict.difference is not None:
            parts.append(f"{verdict.second} comes next, {verdict.difference:.2g}{self.unit} behind")
            if verdict.standard_error is not None:
                sure = "which is clear" if verdict.is_clear else "which may be chance"
                parts[-1] += f" (± {2 * verdict.standard_error:.2g}, two standard errors), {sure}"
            parts[-1] += "."
        if said.least_mae is not None:
            parts.append(f"Nobody can be below {number(said.least_mae)}{self.unit} here: the rest is noise.")
        return " ".join(parts)

    def _legend(self) -> str:
        names = [*((entry.predictor, self.colour[entry.predictor]) for entry in self.said.entries), ("truth", TRUTH)]
        return legend(names)

    def _table_note(self) -> str:
        n = self.said.entries[0].overall.n
        return (
            f"The same {n:,} forecasts of the held-out part for all, by rising error; the best of each column is bold. "
            "Coverage is best at 80 %."
        )

    def _table(self) -> str:
        best = self._best()
        heads = ["predictor", f"MAE{self.unit}", f"RMSE{self.unit}", f"pinball{self.unit}", "skill", "coverage"]
        heads += ["training", "per train_epoch", "train_epochs", "weights", "forecast"]
        return table(heads, [self._row(entry, best) for entry in self.said.entries])

    def _best(self) -> list[float | None]:
        columns = zip(*(_ranks(entry) for entry in self.said.entries), strict=True)
        return [min((value for value in column if value is not None), default=None) for column in columns]

    def _row(self, entry: Entry, best: Sequence[float | None]) -> str:
        score = entry.overall
        shown = [f"{error:,.{self.decimals}f}" for error in (score.mae, score.rmse, score.pinball)]
        shown += [percent(score.skill)]
        shown += [percent(score.coverage), seconds(entry.training_s) if entry.loss else "–"]
        shown += [seconds(entry.usual_train_epoch_s), str(len(entry.loss) or "–"), f"{entry.weights:,}"]
        shown += [f"{entry.forecast_us:,.0f} µs"]
        ranks = _ranks(entry)
        columns = [
            f"<b>{text}</b>" if rank is not None and rank == least else text
            for text, rank, least in zip(shown, ranks, best, strict=True)
        ]
        return row(entry.predictor, columns, self.colour[entry.predictor])

    # -- figures ------------------------------------------------------------------------------------------------------

    def _lead_panels(self) -> Iterator[str]:
        leads = [self._lead(step) for step in range(1, self.said.horizon_steps + 1)]
        panels: list[tuple[str, str, Any, float | None]] = [
            ("mean absolute error", self.error_axis, lambda score: score.mae, self.said.least_mae),
            ("skill against naive", "skill (%)", lambda score: _hundred(score.skill), 0.0),
            ("pinball loss", self.error_axis.replace("mean absolute error", "pinball loss"), _pinball, None),
            ("coverage of the 80 % interval", "covered (%)", lambda score: _hundred(score.coverage), 80.0),
        ]
        for title, axis, value, wanted in panels:
            figure = self.frame.figure(f"lead time ({self.time_unit})", axis)
            for entry in self.said.entries:
                self._line(
                    figure, entry.predictor, leads, [value(score) for score in entry.by_lead], mode="lines+markers"
                )
            if wanted is not None:
                figure.add_hline(wanted, line={"color": AXIS, "width": 1, "dash": "dot"})
            figure.update_yaxes(rangemode="tozero" if "skill" not in title else "normal")
            yield self.frame.panel(title, figure)

    def _rollout_panels(self) -> Iterator[str]:
        for example in self.said.examples:
            figure = self.frame.figure(f"time after the last value seen ({self.time_unit})", self.value_axis)
            self._truth(figure, example)
            for name in (entry.predictor for entry in self.said.entries):
                values = example.rollout[name]
                self._line(figure, name, [self._lead(step) for step in range(1, len(values) + 1)], values)
            yield self.frame.panel(f"{example.series}, from {utc(example.issued_at_us)}", figure, wide=True)

    def _ahead_panels(self) -> Iterator[str]:
        example = self.said.examples[0]
        for name in (entry.predictor for entry in self.said.entries):
            figure = self._ahead(example, name, example.ahead[name])
            figure.update_yaxes(range=_range(example))
            yield self.frame.panel(name, figure)

    def _ahead(self, example: Example, name: str, levels: Sequence[Sequence[float]]) -> Figure:
        figure = self.frame.figure(f"time after the last value seen ({self.time_unit})", self.value_axis)
        leads = [self._lead(step) for step in range(1, len(levels) + 1)]
        low, high = [level[0] for level in levels], [level[-1] for level in levels]
        figure.add_scatter(
            x=[*leads, *reversed(leads)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=faint(self.colour[name]),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
        self._truth(figure, example, len(levels))
        self._line(figure, name, leads, [level[self.said.levels.index(0.5)] for level in levels])
        return figure

    def _loss_panels(self) -> Iterator[str]:
        top = max(value for entry in self.trained for value in (*entry.loss, *entry.validation_loss))
        least = min(value for entry in self.trained for value in (*entry.loss, *entry.validation_loss))
        for entry in self.trained:
            figure = self.frame.figure("train_epoch", "pinball loss, scaled")
            epochs = list(range(1, len(entry.loss) + 1))
            self._line(figure, entry.predictor, epochs, entry.loss, label="training", mode="lines+markers")
            self._line(figure, entry.predictor, epochs, entry.validation_loss, label="validation", dash="dash")
            figure.update_yaxes(range=[max(0.0, least - 0.1 * (top - least)), top + 0.05 * (top - least)])
            figure.update_xaxes(dtick=max(1, math.ceil(len(epochs) / 8)), tick0=1)
            yield self.frame.panel(entry.predictor, figure)

    def _time_panels(self) -> Iterator[str]:
        processor = [entry.usual_train_epoch_processor_s or 0.0 for entry in self.trained]
        wall = [entry.usual_train_epoch_s or 0.0 for entry in self.trained]
        whole = [entry.training_s for entry in self.trained]
        yield self.frame.panel("one train_epoch, processor time", self._bars(processor, "processor s, median"))
        yield self.frame.panel("one train_epoch, by the clock", self._bars(wall, "s, median"))
        yield self.frame.panel("whole training, by the clock", self._bars(whole, "s"))

    def _bars(self, values: Sequence[float], axis: str) -> Figure:
        figure = self.frame.figure(axis, "")
        figure.add_bar(
            x=list(values),
            y=[entry.predictor for entry in self.trained],
            orientation="h",
            marker={"color": [self.colour[entry.predictor] for entry in self.trained]},
            text=[seconds(value) for value in values],
            textposition="auto",
            hoverinfo="skip",
        )
        figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
        figure.update_xaxes(rangemode="tozero")
        figure.update_layout(height=70 + 46 * len(values), bargap=0.35)
        return figure

    def _truth(self, figure: Figure, example: Example, ahead: int | None = None) -> None:
        steps = range(example.truth_from, example.truth_from + len(example.truth))
        near = [step for step in steps if ahead is None or -ahead <= step <= ahead]
        figure.add_scatter(
            x=[self._lead(step) for step in near],
            y=[finite(example.truth[step - example.truth_from]) for step in near],
            name="truth",
            mode="lines",
            line={"color": TRUTH, "width": 1.8},
        )
        figure.add_vline(0, line={"color": AXIS, "width": 1, "dash": "dot"})

    def _line(
        self,
        figure: Figure,
        name: str,
        x: Sequence[float],
        y: Sequence[float | None],
        label: str = "",
        mode: str = "lines",
        dash: str = "solid",
    ) -> None:
        figure.add_scatter(
            x=list(x),
            y=[finite(value) for value in y],
            name=escape(label or name),
            mode=mode,
            line={"color": self.colour[name], "width": 2, "dash": dash},
            marker={"size": 5},
        )

    def _lead(self, step: int) -> float:
        return round(step * self.said.period_s / self.scale_s, 6)

    # -- how it was done ----------------------------------------------------------------------------------------------

    def _split(self) -> str:
        said = self.said
        cuts = (0, said.validation_from, said.scored_from, said.steps)
        parts = zip(("training", "validation", "held out and scored"), cuts, cuts[1:], strict=False)
        bars = "".join(
            f'<div style="flex:{stop - start}"><b>{name}</b><span>{stop - start:,} steps</span></div>'
            for name, start, stop in parts
        )
        return f"<div class=split>{bars}</div>"

    def _facts(self) -> str:
        said = self.said
        start, end = (utc(time_us) for time_us in said.span_us)
        measured = said.values / (len(said.series) * said.steps)
        told = [
            ("series", f"{len(said.series)}, on a grid of {said.period_s:g} s, {said.steps:,} steps each at most"),
            (
                "values",
                f"{said.values:,} measured, {percent(measured)} of the grid",
            ),
            ("from, to", f"{start}, {end}"),
            (
                "split",
                "in time, the same for all: no network sees the held-out part; each stops by the validation part",
            ),
            (
                "forecasts",
                f"at every step of the held-out part, {said.horizon_steps} steps ahead, state carried as live",
            ),
            ("naive", "the last value; skill is 1 - error / error of naive"),
            ("difference", "of the first two: standard error over blocks of time, for neighbouring errors are alike"),
            ("seed", str(said.seed)),
            ("versions", ", ".join(f"{name} {number}" for name, number in said.versions.items())),
            ("machine", said.machine),
        ]
        options = "".join(
            f"<h3>{escape(entry.predictor)}</h3><pre>{escape(json.dumps(entry.options, indent=1))}</pre>"
            for entry in said.entries
        )
        names = escape(", ".join(said.series))
        return (
            f"{facts(told)}<details><summary>Options of each predictor</summary><div class=options>{options}</div>"
            f"</details><details><summary>Names of the series</summary><p class=note>{names}</p></details>"
        )


LEADS_NOTE = (
    "How the forecasts get worse the further they look. Dotted: the error that nobody can be below (where that is "
    "known), the skill of naive, the coverage that is asked for."
)
ROLLOUTS_NOTE = (
    "Left alone from the dotted line on, each predictor is fed its own forecast of the next step again and again. "
    "This asks more of it than the forecasts that are scored above, which look ahead in one go."
)
AHEAD_NOTE = (
    "What each said in one go at the first of these times: its median, and shaded what lies between its 10 % and 90 % "
    "levels."
)
LOSS_NOTE = (
    "Solid: training. Dashed: validation, by which training stops and the best weights are kept. One axis for all; "
    "the same numbers as in the artefact's loss_curve.png."
)
TIME_NOTE = (
    "Measured one after the other in one process. The first train_epoch, which builds the graphs, counts in the whole "
    "only. Processor time adds up all threads, and is what to go by where the machine had other work."
)


def _ranks(entry: Entry) -> list[float | None]:
    """The columns of the table as numbers of which the least is the best; None where nothing is best."""
    score = entry.overall
    skill = None if score.skill is None else -score.skill
    times = [entry.training_s if entry.loss else None, entry.usual_train_epoch_s]
    return [
        score.mae,
        score.rmse,
        score.pinball,
        skill,
        abs(score.coverage - 0.8),
        *times,
        None,
        None,
        entry.forecast_us,
    ]


def _range(example: Example) -> list[float]:
    """One value axis for all predictors of an example, with room around."""
    levels = [value for name in example.ahead for lead in example.ahead[name] for value in lead]
    shown = [value for value in (*levels, *example.truth) if finite(value) is not None]
    room = 0.06 * (max(shown) - min(shown)) or 1.0
    return [min(shown) - room, max(shown) + room]


def _pinball(score: Any) -> float:
    value: float = score.pinball
    return value


def _hundred(ratio: float | None) -> float | None:
    return None if ratio is None else 100 * ratio
