"""The console script: commands by name, and one place where errors become exit codes.

0 success, 1 failure (a full disk too), 2 usage, 69 and 75 unavailable for now, 77 Kafka refuses us, 78 config;
130 interrupted, 141 nobody reads on.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from netpredict.cli import (
    actions,
    backtest,
    compare,
    configuration,
    crossings,
    db,
    dead_letters,
    doctor,
    evaluate,
    forecasts,
    models,
    plugins,
    replay,
    run,
    schemas,
    scores,
    simulate,
    streams,
    train,
)
from netpredict.cli.terminal import say
from netpredict.errors import NetpredictError
from netpredict.printing import printable

BROKEN_PIPE = 141


class Commands(TyperGroup):
    """The root: what a command raises on purpose is told in a line, without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse words that no store, log or config can hold; only a file may have such a name."""
        for word in args:
            if any("\ud800" <= letter <= "\udfff" for letter in word) and not os.path.lexists(word):
                ctx.fail(f"{printable(word)} is not UTF-8 text")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors of ours and of the system become an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except NetpredictError as error:
            say(f"netpredict: {error}")
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            raise typer.Exit(_told(error)) from error


def _told(error: OSError) -> int:
    """The exit code of what the system would not do; a reader that left needs no words."""
    with suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains once more at its end
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    say(f"netpredict: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
    return 1


app = typer.Typer(
    name="netpredict",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"netpredict {version('netpredict')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Stateful recurrent forecasts of radio telemetry from Kafka, turned into safe adaptations."""


@app.command(
    "demo",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def demo(context: typer.Context) -> None:
    """Show what netpredict does, with no servers."""
    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command(help=demo.__doc__)(import_module("netpredict.cli.demo").demo)
    code = command(context.args, prog_name="netpredict demo", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


app.command("run")(run.run)
app.command("check-config")(configuration.check_config)
app.command("doctor")(doctor.doctor)
app.command("sample-config")(configuration.sample_config)
app.command("config-schema")(configuration.config_schema)
app.command("schemas")(schemas.schemas)
app.command("plugins")(plugins.plugins)
app.command("forecasts")(forecasts.forecasts)
app.command("crossings")(crossings.crossings)
app.command("scores")(scores.scores)
app.command("why")(actions.why)
app.command("simulate")(simulate.simulate)
app.command("replay")(replay.replay)
app.command("train")(train.train)
app.command("backtest")(backtest.backtest)
app.command("compare")(compare.compare)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(streams.app, name="streams")
app.add_typer(models.app, name="models")
app.add_typer(actions.app, name="actions")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(db.app, name="db")


def main() -> None:
    """Run the command line of this process."""
    try:
        try:
            app(prog_name="netpredict")
        finally:
            sys.stdout.flush()  # --help and --version print before any command is invoked
    except OSError as error:
        raise SystemExit(_told(error)) from error
