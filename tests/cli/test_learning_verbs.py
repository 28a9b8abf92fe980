"""``train`` and ``backtest``: history in, a version that serves out, and what it is worth."""

import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from netpredict.build import build_stream
from netpredict.cli import backtest
from netpredict.cli.telemetry import recorded
from netpredict.cli.train import simulated
from netpredict.config import load_config
from netpredict.evaluate.recorded import training_set
from netpredict.ingest.source import MemorySource
from netpredict.learn.retrain import history
from netpredict.operate.daemon import Daemon
from netpredict.store.compare import difference, dump
from netpredict.store.history import History
from netpredict.types import TopicPartition, TrainingSet
from tests.cli.conftest import CONFIG, Cli, document, record


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A config with an empty store of its own; rnn may serve both streams."""
    path = tmp_path / "netpredict.toml"
    path.write_text(CONFIG.format(folder=tmp_path).replace('active = "naive"', 'active = "rnn"'))
    return path


def test_history_from_a_file_is_the_history_of_the_store(config: Path) -> None:
    read = load_config(config)
    for name in read.streams:
        stream = build_stream(name, read)
        stored = history(read, stream)
        told = training_set(stream, recorded(config.with_name("telemetry.jsonl")).messages, read)
        assert sorted(told.series_names) == sorted(stored.series_names)
        for index, key in enumerate(told.series_names):
            other = list(stored.series_names).index(key)
            shift = told.first_slot[index] - stored.first_slot[other]
            values = stored.values[other, max(shift, 0) : max(shift, 0) + told.values.shape[1]]
            mine = told.values[index, max(-shift, 0) :][: len(values)]
            np.testing.assert_allclose(mine, values[: len(mine)], atol=1e-4)


@pytest.mark.slow
def test_a_trained_and_promoted_version_serves_in_a_backtest(cli: Cli, own: Path) -> None:
    words = ("--config", own, "--json")
    told = document(cli("train", "traffic", "rnn", "--simulate", 7200, "--radio-cells", 3, "--promote", *words))
    assert told["stage"] == "active"
    assert Path(told["folder"]).name == told["version"]
    assert Path(told["loss_curve"]).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in Path(told["folder"]).iterdir()} >= {"manifest.json", "weights.safetensors"}
    file = record(own.with_name("a.jsonl"), 3600)
    candidate = document(cli("train", "channel-state", "rnn", "--file", file, *words))
    assert candidate["stage"] == "candidate"
    models = document(cli("models", "list", *words))["models"]
    assert {(row["stream"], row["stage"]) for row in models} == {("traffic", "active"), ("channel-state", "candidate")}
    scores = document(cli("backtest", "--file", file, *words))["scores"]
    assert {row["stream"] for row in scores} == {"traffic"}
    assert {row["lead_steps"] for row in scores if row["source"] == "model"} == {1, 2, 3, 4}
    assert not list(own.with_name("data").rglob(".training-*"))


@pytest.mark.slow
def test_a_daemon_and_a_backtest_of_one_log_store_the_same_bits(cli: Cli, own: Path) -> None:
    """What runs live is what was backtested: forecasts, scores, states and firings of a trained network."""
    own.write_text(own.read_text() + f'[kafka]\ngroup = "{backtest.GROUP}"\n[http]\nenabled = false\n')
    file, url = record(own.with_name("a.jsonl"), 2400), f"sqlite:///{own.parent}/backtest.db"
    cli("train", "traffic", "rnn", "--file", file, "--promote", "--config", own)
    scores = document(cli("backtest", "--file", file, "--store", url, "--config", own, "--json"))["scores"]
    assert "model" in {row["source"] for row in scores}

    read = load_config(own)
    log = backtest.memory_log(recorded(file), read)
    daemon = Daemon(read, lambda *_: MemorySource(log, 333))
    thread = threading.Thread(target=daemon.run)
    thread.start()
    deadline = time.monotonic() + 120
    ends = {place: log.end(place) for place in log.topic_partitions() if log.end(place)}
    while {
        TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in History(read.store.url).progress()
    } != ends:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    daemon.flags.stop = True
    thread.join(60)
    assert difference(dump(read.store.url), dump(url)) == []


def test_training_from_the_store_tells_that_there_is_nothing(cli: Cli, own: Path) -> None:
    result = cli("train", "traffic", "rnn", "--config", own)
    assert result.exit_code == 1
    assert "no stored observations" in result.stderr


RSRP = """
[streams.rsrp]
topic = "ran.rsrp"
schema = "rsrp"
series_by = ["ue_id", "radio_cell_id"]
period_s = {period_s}
kpis = ["rsrp_dbm"]
features = {features}
horizon_steps = 3
routes = [{{ active = "rnn" }}]
"""


def simulated_reports(own: Path, period_s: float, features: str) -> TrainingSet:
    own.write_text(own.read_text() + RSRP.format(period_s=period_s, features=features))
    read = load_config(own)
    stream = build_stream("rsrp", read)
    return training_set(stream, simulated(stream, seconds=40, radio_cells=30, ues=3, seed=1), read)


@pytest.mark.parametrize(("period_s", "steps"), [(0.2, 200), (0.5, 80), (1.0, 40), (4.0, 10)])
def test_simulated_reports_fill_the_grid_of_their_stream(own: Path, period_s: float, steps: int) -> None:
    told = simulated_reports(own, period_s, "[]")

    assert told.values.shape[1] == steps
    measured = np.isfinite(told.values[..., 0])
    assert measured.sum() == 3 * 9 * steps  # of each UE the serving radio cell and eight neighbours
    assert measured.all(axis=1).any()


@pytest.mark.parametrize("features", ['["sinr_db"]', '["serving", "sinr_db"]'])
def test_simulated_neighbours_have_the_sinr_that_a_stream_reads(own: Path, features: str) -> None:
    told = simulated_reports(own, 0.2, features)

    np.testing.assert_array_equal(np.isfinite(told.values[..., -1]), np.isfinite(told.values[..., 0]))


def test_recorded_reports_fill_the_grid_of_a_stream_of_200_ms(
    cli: Cli, own: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    file = own.with_name("ns3.jsonl.gz")
    sent = document(cli("replay", "ns3-uma", "--limit-traces", 1, "--to", file, "--json"))["sent"]
    text = RSRP.format(period_s=0.2, features='["serving", "sinr_db", "onsite_rsrp_dbm"]')
    text += 'decoder_options = { site_pattern = "(.+)-[0-9]+", reported_db = 16.0 }\n'
    own.write_text(own.read_text() + text)
    read = load_config(own)

    told = training_set(build_stream("rsrp", read), recorded(file).messages, read)

    _, serving, sinr_db, onsite_dbm = np.moveaxis(told.values, -1, 0)
    assert np.nansum(serving) == sent == 2000
    np.testing.assert_array_equal(np.isfinite(sinr_db), np.isfinite(told.values[..., 0]))
    # -16 dB of the strongest where the own site has no other one in the report
    assert np.isfinite(onsite_dbm[np.isfinite(sinr_db)]).all()


@pytest.mark.parametrize(
    ("name", "period_s", "told"), [("channel-state", 0.5, "whole seconds"), ("rsrp", 0.1, "rsrp_period_ms = 100")]
)
def test_a_period_that_is_not_simulated_is_told(cli: Cli, own: Path, name: str, period_s: float, told: str) -> None:
    text = own.read_text() + RSRP.format(period_s=period_s, features="[]")
    own.write_text(text.replace("period_s = 1.0", f"period_s = {period_s}"))
    result = cli("train", name, "rnn", "--simulate", "60", "--config", own)
    assert result.exit_code == 78
    assert told in result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nothing", "rnn"), 78),
        (("traffic", "nothing"), 78),
        (("traffic", "naive"), 78),
        (("traffic", "rnn", "--simulate", "60"), 1),
        (("traffic", "rnn", "--simulate", "60", "--file", "x"), 2),
        (("traffic", "rnn", "--file", "none.jsonl"), 1),
    ],
)
def test_what_cannot_be_trained_is_told(cli: Cli, own: Path, words: tuple[str, ...], code: int) -> None:
    result = cli("train", *words, "--config", own)
    assert result.exit_code == code
    assert result.stderr


def test_a_backtest_scores_by_stream_and_lead(cli: Cli, config: Path, tmp_path: Path) -> None:
    file = config.with_name("telemetry.jsonl")
    url = f"sqlite:///{tmp_path}/backtest.db"
    told = document(cli("backtest", "--file", file, "--store", url, "--config", config, "--json"))
    assert {(row["stream"], row["kpi"]) for row in told["scores"]} == {
        ("traffic", "prb_use_dl_percent"),
        ("channel-state", "cqi"),
    }
    assert told == document(cli("backtest", "--file", file, "--config", config, "--json"))
    assert told == document(cli("scores", "--url", url, "--json"))
    assert "skill" in cli("scores", "--url", url).stdout
    again = cli("backtest", "--file", file, "--store", url, "--config", config)
    assert again.exit_code == 1
    assert "choose another store" in again.stderr


def test_a_stamp_without_bounds_costs_its_own_record_only(cli: Cli, config: Path, tmp_path: Path) -> None:
    file = record(tmp_path / "a.jsonl", 600)
    good = document(cli("backtest", "--file", file, "--config", config, "--json"))
    value = '{"schema":"netpredict.traffic/1","radio_cell_id":"c","event_time_us":%d,"prb_use_dl_percent":1}'
    line = f'{{"topic":"ran.traffic","key":"c","value":{value % 2**60}}}\n'
    file.write_text(line + file.read_text())
    url = f"sqlite:///{tmp_path}/backtest.db"
    assert document(cli("backtest", "--file", file, "--store", url, "--config", config, "--json")) == good
    (letter,) = document(cli("dead-letters", "list", "--url", url, "--json"))["dead_letters"]
    assert letter["reason"] == "time_unit"
    assert "2015 to 2099" in letter["detail"]
    file.write_text(line.replace(str(2**60), str(10**30)))
    for verb in (("backtest", "--file", file), ("train", "traffic", "rnn", "--file", file)):
        result = cli(*verb, "--config", config)
        assert result.exit_code == 1
        assert "a.jsonl, line 1: " in result.stderr


def test_an_export_is_trained_on_and_backtested_before_there_is_a_broker(cli: Cli, own: Path) -> None:
    table = own.with_name("export.csv")
    cells = [(minute, cell) for minute in range(300) for cell in (1, 2)]
    rows = (f"{1_772_452_800 + 60 * m},cell-{c},{50 + 30 * math.sin(m / 20 + c):.1f}" for m, c in cells)
    table.write_text("\n".join(["time,cell,prb", *rows]))
    maps = ("time_column=time", "time_format=unix_s", "radio_cell_column=cell", "kpis.prb_use_dl_percent=prb:percent")
    words = ("--table", table, *(word for pair in maps for word in ("--map", pair)), "--config", own, "--json")
    trained = document(cli("train", "traffic", "rnn", *words, "--promote"))
    assert trained["stage"] == "active"
    scores = document(cli("backtest", *words))["scores"]
    assert {(row["stream"], row["kpi"]) for row in scores} == {("traffic", "prb_use_dl_percent")}
    assert sum(row["n"] for row in scores if row["lead_steps"] == 1) > 400
    wrong = cli("train", "traffic", "rnn", "--table", table, "--map", "kpis.prb_use_dl_percent=load", "--config", own)
    assert wrong.exit_code == 1
    assert "time_column" in wrong.stderr


def test_a_backtest_says_why_nothing_was_scored(cli: Cli, own: Path) -> None:
    result = cli("backtest", "--file", record(own.with_name("a.jsonl"), 60), "--config", own)
    assert result.exit_code == 0
    assert "nothing was scored" in result.stderr
    assert "schemas that no stream" in result.stderr


def test_a_backtest_needs_one_source_and_streams(cli: Cli, config: Path, tmp_path: Path) -> None:
    assert cli("backtest", "--config", config).exit_code == 2
    assert cli("backtest", "--config", config, "--file", "x", "--dataset", "ucc5g").exit_code == 2
    assert cli("backtest", "--config", config, "--file", "x", "--table", "y").exit_code == 2
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert cli("backtest", "--file", "x", "--config", empty).exit_code == 78
