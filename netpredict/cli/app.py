"""The console script: commands by name, and one place where errors become exit codes.

0 success, 1 failure, 2 usage, 69 and 75 unavailable for now, 78 config; 130 interrupted, 141 nobody reads on.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from netpredict.cli import (
    actions,
    backtest,
    configuration,
    db,
    dead_letters,
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

BROKEN_PIPE = 141


class Commands(TyperGroup):
    """The root: what a command raises on purpose is told in a line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors of ours and a closed pipe become an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except NetpredictError as error:
            say(f"netpredict: {error}")
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains once more at its end
            raise typer.Exit(BROKEN_PIPE) from error


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
app.command("sample-config")(configuration.sample_config)
app.command("config-schema")(configuration.config_schema)
app.command("schemas")(schemas.schemas)
app.command("plugins")(plugins.plugins)
app.command("streams")(streams.streams)
app.command("forecasts")(forecasts.forecasts)
app.command("scores")(scores.scores)
app.command("simulate")(simulate.simulate)
app.command("replay")(replay.replay)
app.command("train")(train.train)
app.command("backtest")(backtest.backtest)
app.add_typer(models.app, name="models")
app.add_typer(actions.app, name="actions")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(db.app, name="db")


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="netpredict")
