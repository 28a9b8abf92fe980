"""The HTML report of ``netpredict evaluate handover`` where every radio cell is known: one file, the answer first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netpredict.evaluate.frame import AXIS, Figure, Frame, grid, header, legend, row, section, table
from netpredict.evaluate.handover_compare import Change, Judged, Point
from netpredict.evaluate.handover_result import Choice, Result, Scene

OURS, PLAIN = "#0072b2", "#7a7a7a"
HEADS: tuple[str, ...] = ("decided", "rule", "setting", "failures", "handovers", "ping-pongs")
HEADS += ("at equal ping-pongs", "at equal handovers", "beside plain A3 of the same aim")
COST_HEADS: tuple[str, ...] = ("decided", "prices, in failures", "seed", "failures", "handovers", "ping-pongs")
COST_HEADS += ("at equal ping-pongs", "at equal handovers")
RULES = {"cost": "on forecasts", "a3": "plain A3"}
COST_NOTE = (
    "Prices chosen on seed 1, and what became of them there and on seed 2. Each cell: failures of plain A3 per "
    "UE-minute at as many ping-pongs or handovers, the change with its 95 % interval over UEs, the difference alike."
)
CURVE_NOTE = (
    "Radio-link and handover failures per UE-minute on seed 2, down and to the left is better. Grey: the plain A3 "
    "settings that no other beats, of the whole grid. Blue: the hook's rule at every price, back = 0."
)


def write_report(result: Result) -> str:
    """The whole page as text."""
    frame = Frame()
    return frame.page("netpredict evaluate handover", _body(result, frame))


def _body(result: Result, frame: Frame) -> Iterator[str]:
    now = [(scene, choice) for scene in result.scenes for choice in scene.choices if not choice.decision_delay_ms]
    answer = "Failures beside plain A3 at as many handovers: " + ", ".join(
        f"{scene.name} {_percent(choice.at_equal_handovers.change)}" for scene, choice in now if _is_first(choice)
    )
    why = (
        f"Plain A3 is the best of {result.plain_settings} settings of offset, time to trigger and filter. Everything "
        "was chosen on seed 1 and scored on seed 2, with TR 36.839's failures at load 0.3. Where the rule on forecasts "
        "has not won on seed 1, at equal ping-pongs and at equal handovers and with the whole of both intervals, the "
        "hook stays in shadow and ours is plain A3: " + _left_alone(now)
    )
    tiles = [
        (scene.name, _percent(choice.at_equal_ping_pongs.change), f"at equal ping-pongs, 95 %: {_span(choice)}")
        for scene, choice in now
        if _is_first(choice)
    ]
    yield header(f"netpredict evaluate handover · {result.dataset}", answer, why, tiles)
    yield legend([("the hook", OURS), ("plain A3", PLAIN)])
    by_handovers = (_curve(frame, scene, "handovers", scene.front_by_handovers) for scene in result.scenes)
    yield from section("Failures by handovers", CURVE_NOTE, [grid(by_handovers)])
    by_ping_pongs = (_curve(frame, scene, "ping_pongs", scene.front_by_ping_pongs) for scene in result.scenes)
    yield from section("Failures by ping-pongs", CURVE_NOTE, [grid(by_ping_pongs)])
    for scene in result.scenes:
        yield from section(f"{scene.name}, {scene.speed_kmh:g} km/h", _told(scene), [_table(scene)])
        if scene.curve:
            yield from section(f"{scene.name}: the rule on forecasts, taken or not", COST_NOTE, [_cost_table(scene)])


def _is_first(choice: Choice) -> bool:
    return choice.aim == "few of both"


def _left_alone(now: Sequence[tuple[Scene, Choice]]) -> str:
    names = [scene.name for scene, choice in now if _is_first(choice) and choice.rule == "a3"]
    return (", ".join(names) or "nowhere") + "."


def _curve(frame: Frame, scene: Scene, which: str, front: Sequence[Point]) -> str:
    figure = frame.figure(f"{which.replace('_', '-')} per UE-minute", "failures per UE-minute")
    ours = [each for each in scene.curve if each.setting.endswith("back 0")]
    for name, points, colour in (("plain A3", front, PLAIN), ("the hook", ours, OURS))[: 2 if ours else 1]:
        ordered = sorted(points, key=lambda each: float(getattr(each, which)))
        figure.add_scatter(
            x=[getattr(each, which) for each in ordered],
            y=[each.failures for each in ordered],
            text=[each.setting for each in ordered],
            mode="lines+markers",
            name=name,
            line={"color": colour},
        )
    return frame.panel(scene.name, _from_zero(figure))


def _from_zero(figure: Figure) -> Figure:
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(rangemode="tozero")
    return figure.update_xaxes(rangemode="tozero", linecolor=AXIS)


def _told(scene: Scene) -> str:
    best = scene.plain
    return (
        f"Best plain setting within the limit of ping-pongs: {best.setting}, {best.failures:.2f} failures, "
        f"{best.handovers:.2f} handovers, {best.ping_pongs:.2f} ping-pongs per UE-minute, over {scene.ue_minutes:.0f} "
        f"UE-minutes. {_taught(scene)}"
    )


def _taught(scene: Scene) -> str:
    if scene.curve:
        return f"A handover was taught to cost {scene.taught_price:.3f} failures."
    return "It has no failure on seed 1, so there was nothing to win and nothing was taught."


def _table(scene: Scene) -> str:
    return table(("chosen within", *HEADS), [_line(choice) for choice in scene.choices])


def _line(choice: Choice) -> str:
    compared = (choice.at_equal_ping_pongs, choice.at_equal_handovers, choice.beside_plain)
    cells = [f"{choice.decision_delay_ms} ms late", RULES[choice.rule], *_figures(choice.ours)]
    return row(choice.aim, [*cells, *map(_interval, compared)])


def _cost_table(scene: Scene) -> str:
    rows = [
        row(choice.aim, _cost_line(choice, seed, judged))
        for choice in scene.choices
        for seed, judged in (("1, chosen", choice.tuned), ("2, scored", choice.cost))
        if judged is not None
    ]
    return table(("chosen within", *COST_HEADS), rows)


def _cost_line(choice: Choice, seed: str, judged: Judged) -> list[str]:
    setting, *figures = _figures(judged.point)
    compared = (judged.at_equal_ping_pongs, judged.at_equal_handovers)
    return [f"{choice.decision_delay_ms} ms late", setting, seed, *figures, *map(_interval, compared)]


def _figures(point: Point) -> list[str]:
    return [point.setting, *(f"{each:.3f}" for each in (point.failures, point.handovers, point.ping_pongs))]


def _interval(change: Change) -> str:
    """The change and the difference in failures per UE-minute, with intervals; the plain failures first."""
    if change.plain_failures is None:
        return "–"
    apart = f"{change.difference:+.3f} ({change.difference_low:+.3f} to {change.difference_high:+.3f})"
    if change.change is None:
        return f"{change.plain_failures:.3f}: {apart}"
    ratio = f"{_percent(change.change)} ({_percent(change.low)} to {_percent(change.high)})"
    return f"{change.plain_failures:.3f}: {ratio}, {apart}"


def _span(choice: Choice) -> str:
    return f"{_percent(choice.at_equal_ping_pongs.low)} to {_percent(choice.at_equal_ping_pongs.high)}"


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{100 * ratio:+.0f} %"
