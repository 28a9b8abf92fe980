import io
import os
import pty
import subprocess
import sys

import msgspec
import pytest

from netpredict.cli import terminal


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Zürich 5G", "Zürich 5G"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\x7f\x9b", "a\\x0ab\\x7f\\x9b"),
        ("left\u202eright", "left\\u202eright"),
        (None, ""),
        (3, "3"),
    ],
)
def test_control_characters_are_written_out(value: object, shown: str) -> None:
    assert terminal.printable(value) == shown


def test_json_holds_no_character_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"text": "\x1b\x7f\x9b\u202e[bold]", "number": float("nan")}
    terminal.print_json(document)
    printed = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert msgspec.json.decode(printed) == {"text": "\x1b\x7f\x9b\u202e[bold]", "number": None}


def test_a_table_takes_nothing_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table("[b]title", ["[i]x", "n"], [["[red]:smile:[/red]", 1], ["\x1b[0m", 2.5]])
    printed = capsys.readouterr().out
    assert "[b]title" in printed
    assert "[i]x" in printed
    assert "[red]:smile:[/red]" in printed
    assert "\\x1b[0m" in printed


WIDE = (["stream", "kpi", "lead_steps", "mae"], [["traffic", "prb_use", 1, 2.5], ["traffic", "prb_use", 2, 3.5]])


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, ["stream kpi lead steps mae", "traffic prb_use 1 2.5", "traffic prb_use 2 3.5"]),
        (30, ["traffic prb_use", "lead steps mae", "1 2.5", "2 3.5"]),
        (15, ["traffic prb_use", "lead", "steps mae", "1 2.5", "2 3.5"]),
        (14, ["stream: traffic", "kpi: prb_use", "lead_steps: 1", "mae: 2.5", "stream: traffic"]),
    ],
)
def test_a_table_takes_the_form_that_fits_the_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, shown: list[str]
) -> None:
    monkeypatch.setattr(terminal, "PIPE_WIDTH", width)
    terminal.print_table("", *WIDE, by=2)
    lines = [" ".join(line.replace("─", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line][: len(shown)] == shown


def test_a_long_text_is_folded_inside_its_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PIPE_WIDTH", 40)
    terminal.print_table("", ["n", "detail"], [[1, "x" * 60], [2, "two words " * 6]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert sum(line.count("x") for line in lines) == 60
    assert sum(line.count("words") for line in lines) == 6


@pytest.mark.parametrize(
    ("time_us", "shown"),
    [(0, "1970-01-01T00:00:00Z"), (1_500_000, "1970-01-01T00:00:01.5Z"), (None, ""), (10**30, f"{10**30} µs")],
)
def test_times_are_utc(time_us: int | None, shown: str) -> None:
    assert terminal.utc(time_us) == shown


def on_terminal(environment: dict[str, str]) -> bytes:
    """What a table looks like on a pseudo-terminal."""
    code = "from netpredict.cli.terminal import print_table; print_table('', ['column'], [['value']])"
    leader, follower = pty.openpty()
    environment = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", **environment}
    subprocess.run([sys.executable, "-c", code], stdout=follower, env=environment, check=True, timeout=60)
    os.close(follower)
    printed = io.BytesIO()
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # Linux tells the end of a pseudo-terminal so
            chunk = b""
        if not chunk:
            break
        printed.write(chunk)
    os.close(leader)
    return printed.getvalue()


def test_no_color_is_heeded() -> None:
    assert b"value" in on_terminal({})
    assert b"\x1b[3" not in on_terminal({"NO_COLOR": "1"})
