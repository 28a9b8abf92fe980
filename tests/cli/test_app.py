"""Exit codes, silence, and a start that imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from netpredict import errors
from netpredict.cli.app import Commands
from tests.cli.conftest import record

HEAVY = ("tensorflow", "keras", "kafka", "pandas", "sqlalchemy", "matplotlib", "plotly", "alembic")
SCRIPT = Path(sys.executable).with_name("netpredict")


def netpredict(*words: object, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=120, **kwargs)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['netpredict', '--help']\n"
        "from netpredict.cli.app import main\n"
        "try: main()\n"
        f"except SystemExit: print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert "dead-letters" in done.stdout


def test_version() -> None:
    done = netpredict("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("netpredict 0.")


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(lambda: None)

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DataError("trouble"), 1),
        (errors.ConfigError("trouble"), 78),
        (errors.PluginError("trouble"), 78),
        (errors.StoreUnavailable("trouble"), 75),
        (errors.SourceUnavailable("trouble"), 75),
        (errors.AlreadyRunning("trouble"), 69),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_of_ours_is_a_line_and_an_exit_code(error: BaseException, code: int) -> None:
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    expected = "" if isinstance(error, KeyboardInterrupt) else "netpredict: trouble\n"
    assert result.stderr == expected


def test_an_error_text_cannot_steer_the_terminal() -> None:
    result = CliRunner().invoke(raising(errors.DataError("a\x1b[2Jb")), ["fail"])
    assert result.stderr == "netpredict: a\\x1b[2Jb\n"


def test_a_wrong_command_line_is_told_with_exit_code_2(cli) -> None:
    assert cli("no-such-verb").exit_code == 2
    assert cli("streams", "--no-such-option").exit_code == 2
    assert cli("simulate").exit_code == 2


def test_a_process_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    done = netpredict("streams", "--url", f"sqlite:///{tmp_path}/none.db")
    assert done.returncode == 1
    assert "netpredict db upgrade" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = f"'{SCRIPT}' config-schema | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.strip() in ("141", "0")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["sample-config", "forecasts --help", "--version"])
def test_a_full_disk_is_a_line_and_exit_code_1(words: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([SCRIPT, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "netpredict: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_telemetry_that_does_not_fit_on_the_disk_is_told(cli) -> None:
    result = cli("simulate", "--seconds", 60, "--to", "/dev/full")
    assert result.exit_code == 1
    assert result.stderr == "netpredict: cannot write /dev/full: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        ("forecasts", "--series", "\udcff"),
        ("forecasts", "--limit", 10**23),
        ("dead-letters", "list", "--from-offset", 10**23),
        ("dead-letters", "show", "topic", 10**23, 0),
        ("simulate", "--to", "x", "--radio-cells", 10**23),
        ("simulate", "--to", "x", "--seconds", 10**23),
    ],
)
def test_what_no_store_can_hold_is_a_wrong_command_line(cli, words: tuple[object, ...]) -> None:
    result = cli(*words)
    assert result.exit_code == 2
    assert "Error" in result.stderr


def test_colours_are_never_written_into_a_pipe(tmp_path: Path) -> None:
    done = netpredict("plugins")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_progress_stays_silent_without_a_terminal(tmp_path: Path) -> None:
    result = netpredict("replay", record(tmp_path / "a.jsonl", 60), "--to", tmp_path / "b.jsonl")
    assert result.stderr.splitlines() == [f"a.jsonl: 243 messages to {tmp_path}/b.jsonl; stamps read in UTC"]
    assert result.stdout == ""


def test_the_demo_is_found_when_it_is_called(cli) -> None:
    result = cli("demo", "--help")
    assert result.exit_code == 0 or isinstance(result.exception, ModuleNotFoundError)
