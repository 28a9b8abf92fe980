from pathlib import Path

import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.traces.message import TraceMessage
from netpredict.traces.replay import FileReader, FileSink, ListSink, replay

START_US = 1_700_000_000_000_000


class FakeClock:
    """A clock that only its sleepers move."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.slept: list[float] = []

    def now_us(self) -> int:
        raise AssertionError("a replay has no use for the wall clock")

    def monotonic_s(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.time_s += seconds


class SlowSink(ListSink):
    def __init__(self, clock: FakeClock, send_s: float) -> None:
        super().__init__()
        self.clock, self.send_s = clock, send_s

    def send(self, topic: str, message: TraceMessage) -> None:
        super().send(topic, message)
        self.clock.time_s += self.send_s


def messages(*event_times_s: float) -> list[TraceMessage]:
    return [message(START_US + round(time_s * 1e6)) for time_s in event_times_s]


def message(event_time_us: int, stream: str = "traffic", key: str = "c1") -> TraceMessage:
    value = b'{"schema":"netpredict.%s/1","radio_cell_id":"c1","event_time_us":%d}' % (stream.encode(), event_time_us)
    return TraceMessage(stream, event_time_us, key.encode(), value)


@pytest.mark.parametrize(("speed", "slept"), [(1.0, [1.0, 2.0]), (2.0, [0.5, 1.0]), (0.5, [2.0, 4.0])])
def test_messages_keep_the_distance_of_their_event_times_over_the_speed(speed: float, slept: list[float]):
    clock, sink = FakeClock(), ListSink()

    assert replay(messages(50, 51, 51, 53), sink, speed=speed, clock=clock) == 4

    assert clock.slept == slept


@pytest.mark.parametrize("speed", [0, float("inf")])
def test_no_speed_means_as_fast_as_possible(speed: float):
    clock, sink = FakeClock(), ListSink()

    replay(messages(50, 5000), sink, speed=speed, clock=clock)

    assert clock.slept == []
    assert [m.event_time_us for _, m in sink.sent] == [START_US + 50_000_000, START_US + 5_000_000_000]


def test_a_slow_sink_is_caught_up_with():
    clock = FakeClock()

    replay(messages(0, 1, 2, 9), SlowSink(clock, send_s=2.5), clock=clock)

    assert clock.slept == [1.5]


def test_a_message_that_lies_back_is_sent_at_once():
    clock, sink = FakeClock(), ListSink()

    replay(messages(10, 12, 11, 13), sink, clock=clock)

    assert clock.slept == [2.0, 1.0]


@pytest.mark.parametrize("event_time_us", [-1, 0, 1_700_000_000, 2**62])
def test_a_stamp_that_is_no_time_is_sent_at_once_and_holds_nobody_up(event_time_us: int):
    clock, sink = FakeClock(), ListSink()

    replay([message(event_time_us), *messages(10, 12), message(event_time_us), *messages(13)], sink, clock=clock)

    assert clock.slept == [2.0, 1.0]
    assert len(sink.sent) == 5


@pytest.mark.parametrize("speed", [-1.0, float("nan")])
def test_a_speed_that_is_none_is_refused(speed: float):
    with pytest.raises(ValueError, match="speed must be 0 or more"):
        replay([], ListSink(), speed=speed)


def test_streams_go_to_their_topics():
    sink = ListSink()

    replay([message(1), message(2, "rsrp", "u1")], sink, speed=0)
    replay([message(3)], sink, speed=0, topics={"traffic": "mine"})

    assert [topic for topic, _ in sink.sent] == ["netpredict.traffic", "netpredict.rsrp", "mine"]


@pytest.mark.parametrize("name", ["replay.jsonl", "replay.jsonl.gz"])
def test_a_file_gives_back_what_was_sent(tmp_path: Path, name: str):
    sent = [message(1), message(2, "rsrp", "ü1"), message(3, "channel-state", "u1")]
    with FileSink(tmp_path / name) as sink:
        replay(sent, sink, speed=0)

    reader = FileReader(tmp_path / name)

    assert list(reader) == sent
    assert list(reader) == sent
    assert [topic for topic, _ in reader.sent()] == [
        "netpredict.traffic",
        "netpredict.rsrp",
        "netpredict.channel-state",
    ]


def test_a_line_of_the_file_is_the_documented_object(tmp_path: Path):
    with FileSink(tmp_path / "replay.jsonl") as sink:
        sink.send("t", message(1))

    (line,) = (tmp_path / "replay.jsonl").read_bytes().splitlines()
    value = {"schema": "netpredict.traffic/1", "radio_cell_id": "c1", "event_time_us": 1}
    assert msgspec.json.decode(line) == {"topic": "t", "key": "c1", "value": value}


@pytest.mark.parametrize("name", ["{}.jsonl", "{}.jsonl.gz"])
def test_equal_messages_give_equal_bytes(tmp_path: Path, name: str):
    for run in ("a", "b"):
        with FileSink(tmp_path / name.format(run)) as sink:
            replay(messages(1, 2, 3), sink, speed=0)

    first, second = ((tmp_path / name.format(run)).read_bytes() for run in ("a", "b"))
    assert first == second


def test_closing_twice_does_nothing(tmp_path: Path):
    sink = FileSink(tmp_path / "replay.jsonl.gz")
    sink.close()
    sink.close()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "truncated"),
        (b'{"topic":"t","key":"k"}', "value"),
        (b'{"topic":"t","key":"k","value":{"schema":"other/1","event_time_us":1}}', "unknown schema 'other/1'"),
        (b'{"topic":"t","key":"k","value":' + b"[" * 20_000, "nested too deeply"),
        (
            b'{"topic":"t","key":"k","value":{"schema":"netpredict.traffic/1","event_time_us":%d}}' % 10**30,
            "event_time",
        ),
    ],
)
def test_a_bad_line_is_a_data_error_with_its_number(tmp_path: Path, line: bytes, reason: str):
    path = tmp_path / "replay.jsonl"
    with FileSink(path) as sink:
        sink.send("t", message(1))
    path.write_bytes(path.read_bytes() + line + b"\n")

    with pytest.raises(DataError, match=f"replay.jsonl, line 2: .*{reason}"):
        list(FileReader(path))


def test_a_gzip_file_cut_short_is_a_data_error(tmp_path: Path):
    path = tmp_path / "replay.jsonl.gz"
    with FileSink(path) as sink:
        replay(messages(*range(1000)), sink, speed=0)
    path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(DataError, match="ended before the end-of-stream"):
        list(FileReader(path))


def test_files_that_cannot_be_opened_are_data_errors(tmp_path: Path):
    with pytest.raises(DataError, match="absent"):
        list(FileReader(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match="absent"):
        FileSink(tmp_path / "absent" / "replay.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["full.jsonl", "full.jsonl.gz"])
def test_a_full_disk_is_a_data_error_and_closes_the_file(tmp_path: Path, name: str):
    (tmp_path / name).symlink_to("/dev/full")
    sink = FileSink(tmp_path / name)
    sink.send("t", message(1))

    with pytest.raises(DataError, match=f"cannot write .*{name}: No space left"):
        sink.close()
    sink.close()
