import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from netpredict.operate.logs import RateLimit, configure_logs

NASTY = "cell\x1b[2J\x07\nlevel=error \x9b31m\u202e"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_events_of_ours_and_of_libraries_come_out_alike() -> None:
    out = io.StringIO()
    configure_logs(out=out)
    structlog.get_logger("netpredict.pipeline").info("commit_done", rows=3)
    logging.getLogger("some.library").warning("slow %s", "disk")
    logging.getLogger("some.library").debug("not this")
    ours, theirs = lines(out)
    assert (ours["event"], ours["level"], ours["logger"], ours["rows"]) == (
        "commit_done",
        "info",
        "netpredict.pipeline",
        3,
    )
    assert str(ours["timestamp"]).endswith("Z")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow disk", "warning", "some.library")


def test_a_logger_made_before_the_configuration_follows_it() -> None:
    early = structlog.get_logger("early")
    out = io.StringIO()
    configure_logs(out=out)
    early.info("hello")
    assert lines(out)[0]["event"] == "hello"


@pytest.mark.parametrize("form", ["json", "console"])
def test_control_characters_never_reach_the_terminal(form: str) -> None:
    out = io.StringIO()
    configure_logs(form, out=out)  # type: ignore[arg-type]
    log = structlog.get_logger("x")
    log.warning("bad_key", key=NASTY, nested={NASTY: [NASTY, NASTY.encode()]}, **{"field": NASTY})
    log.warning(NASTY)
    logging.getLogger("library").error("failed for %s", NASTY)
    text = out.getvalue()
    assert len(text.splitlines()) == 3, "no value begins a line of its own"
    assert not [char for char in text if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0)]
    assert "\u202e" not in text
    if form == "json":
        assert lines(out)[0]["key"] == NASTY, "the value is kept"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_is_kept_and_its_lines_pass_for_no_event(form: str) -> None:
    out = io.StringIO()
    configure_logs(form, out=out)  # type: ignore[arg-type]
    try:
        raise ValueError("first\nsecond \x1b[1m")
    except ValueError:
        structlog.get_logger("x").exception("step_failed")
    text = out.getvalue()
    assert "Traceback" in text
    assert "\x1b" not in text
    if form == "console":
        assert all(line.startswith("    ") for line in text.splitlines()[2:])
    else:
        assert len(text.splitlines()) == 1


def test_long_texts_are_cut() -> None:
    out = io.StringIO()
    configure_logs(out=out)
    structlog.get_logger("x").info("big", value="y" * 100_000)
    assert len(out.getvalue()) < 10_000
    assert "(100000 characters)" in out.getvalue()


def test_the_journal_gets_priorities_and_a_file_does_not(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as out:
        status = os.fstat(out.fileno())
        configure_logs(out=out, environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        structlog.get_logger("x").error("broken")
        logging.getLogger("y").info("fine")
        configure_logs(out=out, environment={"JOURNAL_STREAM": "1:2"})
        structlog.get_logger("x").error("elsewhere")
        out.seek(0)
        first, second, third = out.read().splitlines()
    assert first.startswith('<3>{"')
    assert second.startswith('<6>{"')
    assert third.startswith('{"')


def test_a_storm_is_held_back_and_counted() -> None:
    now_s = [0.0]
    limit = RateLimit("kafka", 3, interval_s=10, monotonic_s=lambda: now_s[0])
    record = logging.makeLogRecord({"name": "kafka.producer.sender"})
    assert [limit.filter(record) for _ in range(5)] == [True, True, True, False, False]
    assert limit.filter(logging.makeLogRecord({"name": "kafkaesque"}))
    now_s[0] = 11.0
    assert limit.filter(record)
    assert record.held_back == 2  # type: ignore[attr-defined]
    assert limit.held_back == 2


def test_the_kafka_client_is_limited_at_the_handler() -> None:
    out = io.StringIO()
    (limit,) = configure_logs(out=out, noisy={"kafka": 5})
    for _ in range(10_000):
        logging.getLogger("kafka.producer.sender").error("Uncaught error", exc_info=False)
    assert len(lines(out)) == 5
    assert limit.held_back == 9_995


def test_warnings_are_log_lines() -> None:
    out = io.StringIO()
    configure_logs(out=out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", UserWarning, stacklevel=1)
    assert "old thing" in str(lines(out)[0]["event"])
