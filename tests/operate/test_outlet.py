"""Nothing that became durable is missing in Kafka, whatever fails in between; and the loop never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from netpredict.clock import SystemClock
from netpredict.config import PublishConfig, RouteConfig, StreamConfig
from netpredict.errors import SourceUnavailable
from netpredict.ingest.messages import Forecast
from netpredict.operate import outlet
from netpredict.operate.metrics import Metrics
from netpredict.operate.outlet import ForecastPublisher
from netpredict.operate.tally import Tally
from netpredict.operate.writer import Written
from netpredict.store import migrate
from netpredict.store.commit import Commit
from netpredict.store.publication import SqlPublications
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.operate.list_sink import ListSink
from tests.store import store_builders as build

STREAMS = {
    "traffic": StreamConfig(
        topic="cells",
        schema="traffic",
        series_by=["radio_cell_id"],
        period_s=10.0,
        kpis=["dl_throughput_kbps"],
        routes=[RouteConfig(active="gru")],
    )
}
CONFIG = PublishConfig(enabled=True, forecasts_topic="f", actions_topic="a")


class Rig:
    """A store that publishes, commits of three series a slot, and publishers over one list of what Kafka has."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.sink = ListSink()
        self.publications = SqlPublications(store, "group")
        self.publishers: list[ForecastPublisher] = []
        self.lane, self.model_id = build.assign(store), build.register(store)
        self.slot = 0

    def commit(self, fenced: frozenset[TopicPartition] = frozenset()) -> Written:
        self.slot += 1
        commit = Commit([build.full_commit(self.lane, self.model_id, self.slot)])
        assert self.store.commit(commit) == set()
        return Written(commit, fenced, 0.01)

    def publisher(self, config: PublishConfig = CONFIG, make_sink: Callable[[], ListSink] | None = None):
        made = ForecastPublisher(
            config, "group", STREAMS, self.publications, make_sink or (lambda: self.sink), SystemClock()
        )
        self.publishers.append(made)
        return made

    def published(self, topic: str = "f") -> list[str]:
        return [dict(message.headers)["ce_id"].decode() for where, message in self.sink.sent if where == topic]

    def stored(self) -> set[tuple[str, int]]:
        with self.store.database.reader() as connection:
            return set(
                connection.execute(
                    "SELECT s.key, f.slot_time_us FROM forecast AS f JOIN series AS s USING (series_id)"
                ).fetchall()
            )

    def said(self) -> set[tuple[str, int]]:
        found = (msgspec.json.decode(m.value, type=Forecast) for where, m in self.sink.sent if where == "f")
        return {(forecast.series, forecast.issued_at_us) for forecast in found}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)
    with SqlStore(url, publishing=True) as store:
        rig = Rig(store)
        yield rig
        rig.sink.open.set()
        for publisher in rig.publishers:
            if publisher._thread.is_alive():
                assert publisher.stop(10)


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_s, "did not come true"
        time.sleep(0.01)


def test_what_a_commit_brought_is_published_once_and_forgotten(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.start()
    until(lambda: not publisher._behind)
    for _ in range(3):
        publisher.offer(rig.commit())
    until(lambda: rig.publications.count() == 0)
    assert rig.said() == rig.stored()
    assert len(rig.published()) == len(set(rig.published())) == 9
    assert rig.published("a") == ["firing-1", "firing-2", "firing-3"]
    assert (publisher.stats["forecasts"], publisher.stats["actions"], publisher.stats["failures"]) == (9, 3, 0)


def test_what_a_former_owner_left_is_published_once_its_topic_partition_is_taken_over(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.start()
    until(lambda: not publisher._behind)
    rig.commit()  # by somebody who died before it was published
    publisher.look_back()
    until(lambda: rig.publications.count() == 0)
    assert rig.said() == rig.stored()


def test_what_the_last_run_left_is_published_with_the_same_ids(rig: Rig) -> None:
    first = rig.publisher()
    for _ in range(4):
        first.offer(rig.commit())  # died before it was started
    second = rig.publisher()
    second.start()
    until(lambda: rig.publications.count() == 0)
    second.stop(5)
    assert rig.said() == rig.stored()
    once = sorted(rig.published())
    rig.sink.sent.clear()
    first.start()  # its queue: the acknowledgements were lost
    until(lambda: len(rig.published()) == 12)
    assert sorted(rig.published()) == once


def test_both_ways_make_the_same_bytes(rig: Rig) -> None:
    rig.publisher().offer(rig.commit())
    rig.publishers[0].start()
    until(lambda: rig.publications.count() == 0)
    rig.publishers[0].stop(5)
    direct = sorted(rig.sink.sent)
    rig.sink.sent.clear()
    with rig.store.database.transaction() as connection:
        connection.execute(
            "INSERT INTO publication VALUES (:lane_id, 10, 0, :until)",
            {"lane_id": rig.lane.lane_id, "until": build.slot_time(9)},
        )
    again = rig.publisher()
    again.start()
    until(lambda: rig.publications.count() == 0)
    assert sorted(rig.sink.sent) == direct


def test_a_refusal_loses_nothing_and_the_client_is_made_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "RETRY_S", 0.05)
    made = []

    def make_sink() -> ListSink:
        if len(made) == 1:
            made.append(None)
            raise SourceUnavailable("no broker answers")
        made.append(rig.sink)
        return rig.sink

    rig.sink.refuse = True
    publisher = rig.publisher(make_sink=make_sink)
    publisher.start()
    publisher.offer(rig.commit())
    until(lambda: publisher.stats["failures"] >= 4)
    assert rig.sink.sent == []
    assert rig.publications.count() == 1
    rig.sink.refuse = False
    publisher.offer(rig.commit())
    until(lambda: rig.publications.count() == 0)
    assert rig.said() == rig.stored()
    assert set(rig.published("a")) == {"firing-1", "firing-2"}
    assert len(made) >= 4


def test_a_full_queue_never_holds_the_loop_up_and_is_read_back(rig: Rig) -> None:
    config = msgspec.structs.replace(CONFIG, outstanding_bytes_max=3000)
    publisher = rig.publisher(config)
    rig.sink.open.clear()
    publisher.start()
    publisher.offer(rig.commit())
    until(lambda: not publisher._queue)  # the thread stands before the sink, which is shut
    for _ in range(19):
        publisher.offer(rig.commit())
    assert publisher.stats["forecasts"] == 0, "who had waited would have seen the sink give up"
    assert publisher.stats["overflows"] > 10
    assert publisher.stats["queued_windows"] < 10
    rig.sink.open.set()
    until(lambda: rig.publications.count() == 0)
    assert rig.said() == rig.stored()
    assert len(rig.stored()) == 60


def test_more_windows_than_one_turn_takes_are_all_read_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "WINDOWS_PER_READ", 3)
    monkeypatch.setattr(outlet, "MESSAGES_PER_TURN", 4)
    for _ in range(10):
        rig.commit()
    publisher = rig.publisher()
    publisher.start()
    until(lambda: rig.publications.count() == 0 and not publisher._behind)
    assert rig.said() == rig.stored()
    assert len(rig.published()) == 30


def test_what_was_fenced_out_is_not_published(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.offer(rig.commit(frozenset({build.TOPIC_PARTITION})))
    assert publisher.stats["queued_windows"] == 0


def test_stop_sends_what_is_queued_and_is_bounded(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.start()
    until(lambda: not publisher._behind)
    rig.sink.open.clear()
    publisher.offer(rig.commit())
    began_s = time.monotonic()
    assert not publisher.stop(0.2)
    assert time.monotonic() - began_s < 15
    assert rig.publications.count() == 1
    rig.sink.open.set()
    assert publisher.stop(5)
    assert rig.said() == rig.stored()
    assert rig.publications.count() == 0
    assert rig.sink.closed == 1


def test_stop_does_not_wait_for_a_broker_that_is_away(rig: Rig) -> None:
    rig.sink.refuse = True
    publisher = rig.publisher()
    publisher.start()
    publisher.offer(rig.commit())
    until(lambda: publisher.stats["failures"] > 0)
    assert publisher.stop(2)
    assert rig.publications.count() == 1


def test_an_idle_publisher_moves_and_one_that_hangs_does_not(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.start()
    first = publisher.beat()
    until(lambda: publisher.beat() > first)
    until(lambda: not publisher._behind)
    rig.sink.open.clear()
    publisher.offer(rig.commit())
    time.sleep(0.3)
    stuck = publisher.beat()
    time.sleep(1.5)
    assert publisher.beat() == stuck


def test_another_config_changes_what_is_published(rig: Rig) -> None:
    publisher = rig.publisher()
    shadow = msgspec.structs.replace(STREAMS["traffic"], routes=[RouteConfig(active="naive", shadows=["gru"])])
    publisher.follow({"traffic": shadow})
    publisher.offer(rig.commit())  # before the start, so that it cannot be found as left behind, and sent again, too
    publisher.start()
    until(lambda: rig.publications.count() == 0)
    assert rig.published() == []
    assert rig.published("a") == ["firing-1"]


def test_the_metrics_tell_of_it(rig: Rig) -> None:
    publisher = rig.publisher()
    publisher.offer(rig.commit())
    publisher.start()
    until(lambda: rig.publications.count() == 0)
    metrics = Metrics()
    tally = Tally(metrics)
    for _ in range(2):
        tally.published(publisher.stats, "f", "a")
    text = metrics.render().decode()
    assert 'netpredict_published_total{topic="f"} 3.0' in text
    assert 'netpredict_published_total{topic="a"} 1.0' in text
    assert "netpredict_publish_failures_total 0.0" in text
