"""A command line in this process, and a store that the daemon's own pipeline filled."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from netpredict.cli import backtest
from netpredict.cli.app import app
from netpredict.cli.telemetry import recorded
from netpredict.config import load_config
from tests.services.postgres import Postgres

Cli = Callable[..., Result]

CONFIG = """
[store]
url = "sqlite:///{folder}/netpredict.db"

[daemon]
data_dir = "{folder}/data"

[streams.traffic]
topic = "ran.traffic"
schema = "traffic"
series_by = ["radio_cell_id"]
period_s = 60.0
kpis = ["prb_use_dl_percent"]
features = ["connected_ues"]
horizon_steps = 4
warm_steps = 2
bucket_s = 600.0
routes = [{{ active = "naive" }}]

[streams.channel-state]
topic = "ran.channel-state"
schema = "channel-state"
series_by = ["ue_id", "radio_cell_id"]
period_s = 1.0
kpis = ["cqi"]
features = ["sinr_db"]
horizon_steps = 3
routes = [{{ active = "naive" }}]

[predictors.naive]
plugin = "naive"

[predictors.rnn]
plugin = "simple_rnn"
options = {{ units = 4, train_epochs = 1, bptt_steps = 8 }}

[hooks.mcs]
plugin = "mcs"
stream = "channel-state"

[actuators.log]
plugin = "log"
"""

ESCAPE = "\x1b]0;owned\x07"
"""Sets the title of a terminal that obeys it."""


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command; the result has exit_code, stdout and stderr."""

    def invoke(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="netpredict")

    return invoke


def document(result: Result) -> object:
    """The one JSON document on stdout of a command that went well."""
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose store is full: two streams, forecasts, scores, firings and one hostile dead letter."""
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "netpredict.toml"
    path.write_text(CONFIG.format(folder=folder))
    read = load_config(path)
    log = backtest.memory_log(recorded(record(folder / "telemetry.jsonl", 1800)), read)
    log.append("ran.traffic", b"key", f'{{"schema":"{ESCAPE}[bold]'.encode(), 1_767_571_200_000)
    backtest.run(read, log, read.store.url)
    return path


@pytest.fixture(scope="session")
def config_on_postgres(config: Path, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on PostgreSQL, with the password in a file."""
    folder = tmp_path_factory.mktemp("cli-postgres")
    secret = folder / "password"
    secret.touch(0o600)
    secret.write_text(postgres.password)
    url = postgres.new_database("cli").replace(f":{postgres.password}", "")
    path = folder / "netpredict.toml"
    sqlite = f'url = "sqlite:///{config.parent}/netpredict.db"'
    path.write_text(config.read_text().replace(sqlite, f'url = "{url}"\npassword_file = "{secret}"'))
    read = load_config(path)
    log = backtest.memory_log(recorded(config.parent / "telemetry.jsonl"), read)
    log.append("ran.traffic", b"key", f'{{"schema":"{ESCAPE}[bold]'.encode(), 1_767_571_200_000)
    backtest.run(read, log, read.store_url)
    return path


def record(path: Path, seconds: int) -> Path:
    """Simulated telemetry in a file."""
    words = ["simulate", "--to", path, "--seconds", seconds, "--radio-cells", 3, "--ues", 2]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return path
