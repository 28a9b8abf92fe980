"""``netpredict run``: the daemon."""

from __future__ import annotations

import typer

from netpredict.cli.options import ConfigPath, config_path


def run(config: ConfigPath = None) -> None:
    """Run the daemon until SIGTERM. SIGHUP reloads the config."""
    from netpredict.config import naming_variables
    from netpredict.operate.daemon import run_daemon

    with naming_variables():
        code = run_daemon(config_path(config))
    raise typer.Exit(code)
