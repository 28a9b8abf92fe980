"""``netpredict backtest``: recorded telemetry through the daemon's own pipeline, and what the forecasts were worth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netpredict.cli.backtest_dataset import DATASETS, PREDICTORS, backtest_dataset
from netpredict.cli.backtest_published import FOLDS, PREDICTOR, backtest_published
from netpredict.cli.options import (
    AsJson,
    ConfigPath,
    MappingFile,
    MappingPairs,
    Table,
    at_most_one,
    read_config_of_streams,
)
from netpredict.cli.scores import print_skill
from netpredict.cli.telemetry import Telemetry, of_dataset, of_table, recorded, tell_repairs, topics_of
from netpredict.cli.terminal import progress, say
from netpredict.errors import ArtefactError, DataError, StoreError

if TYPE_CHECKING:
    from netpredict.config import Config
    from netpredict.ingest.source import MemoryLog
    from netpredict.pipeline import Pipeline
    from netpredict.store.sql import SqlStore

GROUP = "backtest"


def backtest(
    file: Annotated[Path | None, typer.Option("--file", help="Telemetry recorded by simulate or replay.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", help=f"A public data set: {', '.join(DATASETS)}; with --config one of those of replay."
        ),
    ] = None,
    predictors: Annotated[
        str | None,
        typer.Option("--predictors", help="Of --dataset: train and score these.", show_default=PREDICTORS),
    ] = None,
    train_epochs: Annotated[
        int | None, typer.Option("--train-epochs", min=1, help="Of --predictors: another number, for a quick look.")
    ] = None,
    table: Table = None,
    mapping: MappingFile = None,
    pairs: MappingPairs = None,
    limit_traces: Annotated[int | None, typer.Option("--limit-traces", min=1, help="Only the first traces.")] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Keep forecasts and scores in this store [default: a temporary one]."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help='"published": train by folds and score as the table published for ucc5g.'),
    ] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="Of a protocol: the predictor to train.", show_default="gru")
    ] = None,
    options: Annotated[
        Path | None, typer.Option("--options", help="Of a protocol: TOML with the predictor's options.")
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", min=1, max=5, help="Of a protocol: how many of the five folds to run.")
    ] = FOLDS,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Forecast recorded telemetry and print the skill.

    It takes the daemon's own way, and prints the skill against naive by stream, predictor, KPI and lead time.
    The model versions are those that serve in the store of the config; where there is none, the ladder answers.
    A version that cannot be loaded is named with the reason, and the command fails.
    A public data set without a config: predictors are trained on its first part and scored on the rest, by lead time.
    """
    if protocol is not None:
        if protocol != "published" or file is not None or table is not None:
            raise typer.BadParameter('there is "published", with --dataset ucc5g', param_hint="--protocol")
        backtest_published(dataset, limit_traces, predictor or PREDICTOR, options, folds, as_json)
        return
    if predictor is not None or options is not None or folds != FOLDS:
        raise typer.BadParameter("these need --protocol", param_hint="--predictor, --options, --folds")
    if dataset in DATASETS and config is None:
        at_most_one(file=file, dataset=dataset, table=table)
        backtest_dataset(dataset, predictors or PREDICTORS, limit_traces, train_epochs, as_json)
        return
    if predictors is not None or train_epochs is not None:
        raise typer.BadParameter(f"needs --dataset {'|'.join(DATASETS)} and no --config", param_hint="--predictors")
    at_most_one(file=file, dataset=dataset, table=table)
    read = read_config_of_streams(config)
    if file is not None:
        telemetry = recorded(file)
    elif dataset is not None:
        telemetry = of_dataset(dataset, limit_traces)
    elif table is not None:
        telemetry = of_table(table, mapping, pairs, limit_traces=limit_traces)
    else:
        raise typer.BadParameter("give one of --file, --dataset and --table", param_hint="--file")
    _as_the_daemon(telemetry, read, store, as_json)


def _as_the_daemon(telemetry: Telemetry, read: Config, store: str | None, as_json: bool) -> None:
    """Through the daemon's own pipeline; prints the skill, and fails where a version was refused."""
    with _results(store) as url:
        log = memory_log(telemetry, read)
        tell_repairs(telemetry)
        run(read, log, url)
        _print(url, as_json)
        _tell_refused(url)


@contextmanager
def _results(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="netpredict-backtest-") as folder:
        yield f"sqlite:///{folder}/backtest.db"


def memory_log(telemetry: Telemetry, config: Config) -> MemoryLog:
    """The messages as a log of the configured topics; each arrived with the newest event time so far that is one."""
    from netpredict.ingest.firewall import EARLIEST_US, LATEST_US
    from netpredict.ingest.source import MemoryLog

    topics = topics_of(config)
    log = MemoryLog({stream.topic: 1 for stream in config.streams.values()})
    newest_us, unread = 0, 0
    for message in telemetry.messages:
        if EARLIEST_US <= message.event_time_us <= LATEST_US:
            newest_us = max(newest_us, message.event_time_us)
        if topics[message.stream] in log.partitions:
            log.append(topics[message.stream], message.key, message.value, -(-newest_us // 1000))
        else:
            unread += 1
    if unread:
        say(f"{unread} messages are of schemas that no stream of the config reads")
    return log


def run(config: Config, log: MemoryLog, url: str) -> None:
    """The daemon's pipeline over a log in this process, committed to a store of its own."""
    from netpredict.build import build_streams
    from netpredict.ingest.source import MemorySource
    from netpredict.learn.shelf import StoreShelf
    from netpredict.pipeline import Pipeline
    from netpredict.store import migrate
    from netpredict.store.database import database_of
    from netpredict.store.history import History
    from netpredict.store.sql import SqlStore

    migrate.upgrade(url)
    if History(url).progress(GROUP):
        raise DataError(f"{database_of(url).name} already holds a backtest: choose another store")
    with SqlStore(url) as store:
        _lend_models(config, store)
        streams = build_streams(config)
        pipeline = Pipeline(GROUP, streams, store, StoreShelf(config, store, streams), GROUP)
        source = MemorySource(log, config.kafka.poll_records_max)
        for topic_partition in source.changes().assigned:
            lane, offset = pipeline.assign(topic_partition)
            pipeline.started(lane, source.seek(topic_partition, offset))
        with progress() as shown:
            task = shown.add_task("backtest", total=sum(source.end_offsets().values()))
            while polled := source.poll(0.0):
                pipeline.step(polled)
                shown.advance(task, sum(len(part.records) for part in polled))
                if pipeline.rows_pending >= config.daemon.commit_rows_max:
                    _commit(pipeline, store)
        _commit(pipeline, store)


def _commit(pipeline: Pipeline, store: SqlStore) -> None:
    commit = pipeline.take_commit()
    if commit is not None and store.commit(commit):
        raise StoreError(f"{store.database.name}: somebody else took over the topic partitions of this backtest")


def _lend_models(config: Config, store: SqlStore) -> None:
    """Register the versions that serve, or served, in the config's store, so that this store can name them."""
    from netpredict.store.database import database_of
    from netpredict.store.history import History

    if not database_of(config.store_url).exists():
        return
    for row in reversed(History(config.store_url).models()):
        if row["stage"] in ("active", "retired") and row["folder"]:
            store.register_model(
                row["stream"],
                row["predictor"],
                row["version"],
                row["plugin"],
                row["folder"],
                row["scores"],
                row["stage"],
            )


def _print(url: str, as_json: bool) -> None:
    from netpredict.store.history import History

    rows = History(url).skill()
    if not rows:
        say("nothing was scored: no version serves yet (netpredict train ... --promote), or there is too little")
    print_skill(rows, as_json)


def _tell_refused(url: str) -> None:
    """ArtefactError when a version was refused: what was printed is not what that version is worth."""
    from netpredict.store.history import History

    refused = {
        f"{row['payload']['predictor']}@{row['payload']['version']} on stream {row['stream']}: {row['payload']['why']}"
        for row in History(url).journal(kind="refused")
    }
    if refused:
        raise ArtefactError("refused " + "; ".join(sorted(refused)))
