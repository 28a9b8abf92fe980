"""``netpredict run``: the daemon."""

from __future__ import annotations

from importlib import import_module

import typer

from netpredict.cli.options import ConfigPath, config_path


def run(config: ConfigPath = None) -> None:
    """Run the daemon until SIGTERM. SIGHUP reloads the config."""
    raise typer.Exit(import_module("netpredict.operate.daemon").run_daemon(config_path(config)))
