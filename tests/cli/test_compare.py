"""``compare``: a case in, one report out, and its numbers beside it."""

from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Cli, document


def test_a_report_and_its_numbers_are_written_side_by_side(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = document(cli("compare", "--predictors", "naive", "--on", "sine", "--quick", "--json"))
    assert (told["report"], told["json"], told["best"]) == ("compare-sine.html", "compare-sine.json", "naive")
    assert told["report_bytes"] == Path("compare-sine.html").stat().st_size
    numbers = msgspec.json.decode(Path("compare-sine.json").read_bytes())
    assert numbers["entries"][0]["overall"]["mae"] == told["predictors"][0]["mae"]
    assert {"python", "tensorflow", "keras", "netpredict"} <= numbers["versions"].keys()
    result = cli("compare", "--predictors", "naive", "--quick", "--output", "mine.html")
    assert "mine.html (4.9 MB, opens without a network)" in result.stderr
    assert "naive" in result.stdout
    assert Path("mine.json").exists()


def test_the_sine_can_be_told(cli: Cli, tmp_path: Path) -> None:
    words = ("compare", "--predictors", "naive", "--quick", "--json", "-o", tmp_path / "a.html")
    assert cli(*words, "--period-steps", 25, "--noise", 0.3, "--seed", 4, "--horizon-steps", 5).exit_code == 0
    numbers = msgspec.json.decode((tmp_path / "a.json").read_bytes())
    assert "period of 25 steps, normal noise of 0.3 (seed 4)" in numbers["about"]
    assert (numbers["horizon_steps"], numbers["seed"], len(numbers["entries"][0]["by_lead"])) == (5, 4, 5)


def test_a_table_is_compared_on(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "export.csv"
    table.write_text("t,c,n\n" + "\n".join(f"{1_772_452_800 + 60 * step},a,{step % 7}" for step in range(200)))
    pairs = ("time_column=t", "time_format=unix_s", "radio_cell_column=c", "kpis.connected_ues=n")
    words = ("compare", "--predictors", "naive", "--table", table, "-o", tmp_path / "a.html")
    told = document(cli(*words, *(word for pair in pairs for word in ("--map", pair)), "--json"))
    assert told["case"] == "export"
    unmapped = cli(*words)
    assert unmapped.exit_code == 1
    assert "has the columns t, c, n" in unmapped.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--on", "nothing"), 1, "known: sine, ucc5g"),
        (("--predictors", "nothing"), 78, "installed:"),
        (("--predictors", ","), 78, "name some predictors"),
        (("--on", "sine", "--table", "x"), 2, "only one of"),
        (("--output", "none/report.html"), 1, "no folder none"),
        (("--horizon-steps", "500"), 1, "too few"),
    ],
)
def test_what_cannot_be_compared_is_told(cli: Cli, words: tuple[str, ...], code: int, told: str) -> None:
    result = cli("compare", "--quick", *words)
    assert result.exit_code == code
    assert told in result.stderr.replace("\n", " ")
