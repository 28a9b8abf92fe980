"""``netpredict run``: the daemon."""

from __future__ import annotations

import typer

from netpredict.cli.options import ConfigPath, config_path


def run(config: ConfigPath = None) -> None:
    """Run the daemon until SIGTERM. SIGHUP reloads the config.

    Exit codes: 0 stopped as asked; 78 the config is wrong, or the store has the schema of another release (another
    start would not help); 69 another process writes the store; 75 the store was away for too long; 1 anything else.
    """
    from netpredict.config import naming_variables
    from netpredict.operate.daemon import run_daemon

    with naming_variables():
        code = run_daemon(config_path(config))
    raise typer.Exit(code)
