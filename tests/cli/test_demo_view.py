"""The live view fits its terminal and shows data as data."""

import re

import pytest
from rich.console import Console

from netpredict.cli.demo_view import LiveView, SkillRow, Snapshot, duration, leads_shown, short, skill_rows, sparkline

STREAMS = [("traffic", "lstm", 500, 1000, [900, 50, 50, 0]), ("rsrp", "gru", 5000, 1000, [700, 0, 300, 0])]


def action(hook: str, object_id: str, slot_time_us: int) -> dict[str, object]:
    return {
        "slot_time_us": slot_time_us,
        "hook": hook,
        "object_id": object_id,
        "attribute": "servingCell",
        "value": {"source": "a", "target": "b"},
        "mode": "auto",
        "outcomes": [{"kind": "applied", "reason": "logged"}],
    }


def seen() -> Snapshot:
    skill = SkillRow("traffic", "lstm", "prb_use_dl_percent", 10, 1.0, 2.0, 0.8, {1: 0.1, 10: -0.2, 20: 0.3})
    actions = [action("handover", f"UE={number}", number) for number in range(60)]
    return Snapshot(
        phase="running",
        rate=20_000,
        streams=STREAMS,
        periods_s={"traffic": 60.0, "rsrp": 20.0},
        skill=[skill],
        actions=actions,
    )


def drawn(snapshot: Snapshot, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None, markup=False)
    view = LiveView("netpredict demo")
    view.seen, view.rates = snapshot, [1.0, 2.0, 3.0]
    return ["".join(part.text for part in line) for line in console.render_lines(view, pad=False)]


@pytest.mark.parametrize(("width", "height"), [(100, 30), (140, 45), (80, 24)])
def test_the_view_fits_the_terminal(width: int, height: int) -> None:
    lines = drawn(seen(), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_larger_terminal_shows_more_actions() -> None:
    shown = [sum("UE=" in line for line in drawn(seen(), 140, height)) for height in (30, 45)]
    assert 0 < shown[0] < shown[1]


def test_skill_is_shown_with_its_sign_by_lead_time() -> None:
    text = "\n".join(drawn(seen(), 100, 30))
    assert re.search(r"1m \+0\.10 +10m -0\.20 +20m \+0\.30 +\+0\.50 +80%", text)


def test_markup_in_data_is_text() -> None:
    snapshot = seen()
    snapshot.actions = [action("handover", "[red]UE[/red]", 1)]
    assert any("[red]UE[/red]" in line for line in drawn(snapshot, 100, 30))


def test_a_view_before_anything_happened_can_be_drawn() -> None:
    assert drawn(Snapshot(), 100, 30)


def test_no_hook_crowds_the_others_out() -> None:
    snapshot = seen()
    snapshot.actions = [*snapshot.actions, action("bandwidth", "CELL=1", 0)]
    assert any("CELL=1" in line for line in drawn(snapshot, 100, 30))


def test_only_forecasts_of_networks_count_and_leads_are_weighed_by_their_truths() -> None:
    row = {"stream": "s", "predictor": "p", "kpi": "k", "source": "model", "coverage": {"0.1..0.9": 0.8}}
    rows = [
        row | {"lead_steps": 1, "n": 3, "flat": 0, "mae": 1.0, "naive_mae": 2.0, "skill": 0.5},
        row | {"lead_steps": 2, "n": 1, "flat": 0, "mae": 5.0, "naive_mae": 2.0, "skill": -1.5},
        row | {"lead_steps": 1, "n": 9, "flat": 0, "mae": 9.0, "naive_mae": 9.0, "skill": 0.0, "source": "naive"},
    ]
    (found,) = skill_rows(rows)
    assert (found.n, found.mae, found.naive_mae, found.skill) == (4, 2.0, 2.0, 0.0)
    assert found.by_lead == {1: 0.5, 2: -1.5}
    assert found.covered == pytest.approx(0.8)


def test_small_helpers() -> None:
    assert sparkline([0, 1, 2], 4) == " ▁▅█"
    assert sparkline([], 2) == "  "
    assert leads_shown([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert leads_shown([1, 2], 3) == [1, 2]
    assert [short(n) for n in (12, 1_500, 250_000, 7_000_000)] == ["12", "1.5k", "250k", "7.0M"]
    assert [duration(s) for s in (20, 60, 80, 1200)] == ["20s", "1m", "80s", "20m"]
