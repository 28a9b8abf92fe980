"""What the reading verbs say about a store that the pipeline filled."""

import math
import shlex
import shutil
from pathlib import Path

import msgspec
import pytest

from netpredict.cli import backtest, terminal
from netpredict.config import load_config
from netpredict.ingest.messages import Traffic
from netpredict.ingest.reasons import REASONS
from netpredict.ingest.source import MemoryLog
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.cli.conftest import document

LISTS = {
    "streams": "streams",
    "streams --partitions": "topic_partitions",
    "forecasts": "forecasts",
    "crossings --above 0": "crossings",
    "scores": "scores",
    "models list": "models",
    "actions list": "actions",
    "dead-letters list": "dead_letters",
    "dead-letters count": "reasons",
}


@pytest.mark.parametrize("verb", LISTS)
def test_a_list_is_one_document_and_a_table_without_control_characters(cli, config: Path, verb: str) -> None:
    found = document(cli(*verb.split(), "--config", config, "--json"))
    rows = found[LISTS[verb]]
    assert rows
    assert all(isinstance(row, dict) for row in rows)
    printed = cli(*verb.split(), "--config", config)
    assert printed.exit_code == 0
    assert printed.stderr == ""
    assert all(character.isprintable() or character == "\n" for character in printed.stdout)


READS = [*LISTS, "streams --moved", "forecasts --stream traffic --limit 3", "db check", "db current"]


@pytest.mark.parametrize("verb", READS)
def test_postgresql_answers_as_sqlite_does(cli, config: Path, config_on_postgres: Path, verb: str) -> None:
    on_sqlite, on_postgres = (
        document(cli(*verb.split(), "--config", path, "--json")) for path in (config, config_on_postgres)
    )
    for found in (on_sqlite, on_postgres):  # made at another time
        for row in found.get("models", []):
            del row["created_us"]
    assert on_postgres == on_sqlite
    assert cli(*verb.split(), "--config", config_on_postgres).exit_code == 0


def test_the_reasons_are_told_with_what_they_mean(cli) -> None:
    told = document(cli("dead-letters", "reasons", "--json"))["reasons"]
    assert {row["reason"] for row in told} == REASONS.keys()
    assert "count_for_percent" in cli("dead-letters", "reasons").stdout


@pytest.mark.parametrize("verb", [*LISTS, "check-config"])
def test_a_list_fits_on_a_screen_of_80_columns(cli, config: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PIPE_WIDTH", 80)
    result = cli(*verb.split(), "--config", config)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("verb", LISTS)
def test_a_list_of_a_store_that_is_not_there_says_what_to_do(cli, tmp_path: Path, verb: str) -> None:
    result = cli(*verb.split(), "--url", f"sqlite:///{tmp_path}/none.db", "--json")
    assert result.exit_code == 1
    assert "netpredict db upgrade" in result.stderr
    assert result.stdout == ""


def test_streams_count_every_record(cli, config: Path) -> None:
    rows = document(cli("streams", "--config", config, "--json"))["streams"]
    traffic = next(row for row in rows if row["stream"] == "traffic")
    assert traffic == {
        "stream": "traffic",
        "topic": "ran.traffic",
        "topic_partitions": 1,
        "series": 3,
        "accepted": 90,
        "duplicate": 0,
        "late": 0,
        "dead": 1,
    }
    only = document(cli("streams", "--stream", "traffic", "--partitions", "--config", config, "--json"))
    (partition,) = only["topic_partitions"]
    assert partition["next_offset"] == 91


@pytest.fixture(scope="module")
def moved(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three radio cells for five minutes, of which sim-00000-1 then goes on on another topic partition."""
    folder = tmp_path_factory.mktemp("moved")
    path = folder / "netpredict.toml"
    path.write_text(config.read_text().replace(str(config.parent), str(folder)))
    log = MemoryLog({"ran.traffic": 2, "ran.channel-state": 1})
    for minute in range(8):
        for cell in range(3) if minute < 5 else (1,):
            time_us = 1_767_571_200_000_000 + minute * 60_000_000
            row = Traffic("netpredict.traffic/1", f"sim-00000-{cell}", time_us, prb_use_dl_percent=40.0 + minute)
            place = TopicPartition("ran.traffic", int(minute >= 5))
            log.append_to(place, b"key", msgspec.json.encode(row), time_us // 1000)
    read = load_config(path)
    backtest.run(read, log, read.store.url)
    return path


@pytest.fixture
def two_places(moved: Path, tmp_path: Path) -> tuple[str, ...]:
    """A copy of that store."""
    path = tmp_path / "netpredict.toml"
    path.write_text(moved.read_text().replace(str(moved.parent), str(tmp_path)))
    shutil.copy(moved.parent / "netpredict.db", tmp_path)
    return ("--config", str(path))


def test_a_moved_series_is_listed_with_the_command_that_moves_it(cli, two_places: tuple[str, ...]) -> None:
    listed = document(cli("streams", "--moved", *two_places, "--json"))["moved"]
    (row,) = listed
    assert (row["series"], row["from"], row["to"], row["asked"]) == (
        "sim-00000-1",
        "ran.traffic/0",
        "ran.traffic/1",
        False,
    )
    assert row["do"] in cli("streams", "--moved", *two_places).stdout
    words = shlex.split(row["do"])[1:]
    assert "before the next record" in cli(*words, *two_places).stdout
    assert document(cli("streams", "--moved", *two_places, "--json"))["moved"][0]["do"] == "start the daemon"
    backwards = ("--from", "ran.traffic/1", "--to", "ran.traffic/0", *two_places, "--json")
    assert document(cli("streams", "move", "traffic", "sim-00000-1", *backwards))["kind"] == "move"


def test_a_transplant_is_asked_for_once_and_noted(cli, two_places: tuple[str, ...]) -> None:
    words = ("streams", "transplant", "traffic", "sim-00000-0", "sim-00000-2", *two_places)
    asked = document(cli(*words, "--json"))
    assert (asked["from_series"], asked["series"]) == ("sim-00000-0", "sim-00000-2")
    url = load_config(Path(two_places[1])).store.url
    assert [row["what"] for row in History(url).audit()] == ["series_transplant"]
    with SqlStore(url) as store:
        (request,) = store.requests()
        assert (request.request_id, request.kind) == (asked["request_id"], "transplant")
        assert cli(*words).exit_code == 69


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("transplant traffic none sim-00000-0", "no series none of stream traffic is alive"),
        ("transplant traffic sim-00000-0 none", "no series none of stream traffic is alive"),
        ("transplant traffic sim-00000-0 sim-00000-0", "sim-00000-0 is the series itself: name a neighbour"),
        ("transplant traffic sim-00000-0 sim-00000-1", "lives on ran.traffic/0, ran.traffic/1"),
        ("transplant traffic sim-00000-0 sim-00000-9", "no series sim-00000-9 of stream traffic is alive"),
        ("move traffic sim-00000-0 --from ran.traffic/0 --to ran.traffic/1", "it lives on ran.traffic/0"),
        ("move traffic sim-00000-1 --from ran.traffic/1 --to ran.traffic/1", "are both ran.traffic/1"),
        ("move traffic none --from ran.traffic/0 --to ran.traffic/1", "is alive on ran.traffic/0"),
    ],
)
def test_what_cannot_be_transplanted_or_moved_is_told(cli, two_places: tuple[str, ...], words: str, told: str) -> None:
    result = cli("streams", *words.split(), *two_places)
    assert result.exit_code == 1
    assert told in result.stderr


def test_forecasts_of_one_series_and_of_a_pattern(cli, config: Path) -> None:
    words = ("forecasts", "--stream", "traffic", "--config", config)
    one = document(cli(*words, "--series", "sim-00000-1", "--limit", 3, "--json"))["forecasts"]
    assert [row["series"] for row in one] == ["sim-00000-1"] * 3
    assert one[0]["slot_time_us"] > one[1]["slot_time_us"] > one[2]["slot_time_us"]
    assert {"stream", "series", "predictor", "version", "levels", "sources", "quality", "observed", "values"} <= set(
        one[0]
    )
    assert len(one[0]["values"]["prb_use_dl_percent"]) == 4
    several = document(cli(*words, "--series", "sim-*", "--json"))["forecasts"]
    assert [row["series"] for row in several] == ["sim-00000-0", "sim-00000-1", "sim-00000-2"]
    assert document(cli(*words, "--series", "none", "--json")) == {"forecasts": []}
    shown = cli(*words, "--series", "sim-00000-1", "--limit", 1).stdout
    assert all(word in shown for word in ("+60 s", "+240 s", "q0.1", "q0.9", "source model"))


def test_forecasts_that_do_not_exist_are_told(cli, config: Path) -> None:
    result = cli("forecasts", "--series", "none", "--config", config)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no forecast" in result.stderr


@pytest.mark.parametrize("verb", ["forecasts", "scores", "streams"])
def test_a_stream_that_the_store_does_not_know_is_refused_with_those_it_knows(cli, config: Path, verb: str) -> None:
    result = cli(verb, "--stream", "nope", "--config", config)
    assert result.exit_code == 1
    assert "no stream 'nope'; it has channel-state, traffic" in result.stderr


def test_a_mistyped_store_makes_no_folder(cli, tmp_path: Path) -> None:
    result = cli("db", "upgrade", "--url", f"sqlite:///{tmp_path}/mistyped/netpredict.db")
    assert result.exit_code == 1
    assert f"no folder {tmp_path}/mistyped" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_scores_tell_the_skill_by_lead_time(cli, config: Path) -> None:
    rows = document(cli("scores", "--stream", "traffic", "--kpi", "prb_use_dl_percent", "--config", config, "--json"))
    by_model = [row for row in rows["scores"] if row["source"] == "model"]
    assert [row["lead_steps"] for row in by_model] == [1, 2, 3, 4]
    assert all(row["skill"] == 0 for row in by_model)  # naive against naive
    assert document(cli("scores", "--predictor", "none", "--config", config, "--json")) == {"scores": []}


def test_an_action_is_shown_with_its_why(cli, config: Path) -> None:
    rows = document(cli("actions", "list", "--hook", "mcs", "--limit", 2, "--config", config, "--json"))["actions"]
    assert len(rows) == 2
    firing_id = rows[0]["firing_id"]
    shown = document(cli("actions", "show", firing_id[:20], "--config", config, "--json"))
    assert shown == rows[0]
    printed = cli("actions", "show", firing_id, "--config", config).stdout
    assert "worth_bps_hz" in printed
    assert "shadow" in printed
    assert cli("actions", "show", "zz", "--config", config).exit_code == 1


def test_a_dead_letter_is_shown_and_can_be_had_as_it_came(cli, config: Path) -> None:
    counted = document(cli("dead-letters", "count", "--config", config, "--json"))
    assert counted["total"] == 1
    (row,) = document(cli("dead-letters", "list", "--topic", "ran.traffic", "--config", config, "--json"))[
        "dead_letters"
    ]
    place = ("ran.traffic", 0, row["offset"])
    assert document(cli("dead-letters", "show", *place, "--config", config, "--json"))["dead_letters"] == [row]
    printed = cli("dead-letters", "show", *place, "--config", config).stdout
    assert "\x1b" not in printed
    assert "[bold]" in printed
    raw = cli("dead-letters", "show", *place, "--raw", "--config", config)
    assert raw.stdout_bytes == b'{"schema":"\x1b]0;owned\x07[bold]'
    assert cli("dead-letters", "show", "ran.traffic", 0, 5, "--config", config).exit_code == 1
    assert cli("dead-letters", "show", "ran.traffic", 0, 5, "--raw", "--config", config).exit_code == 1


def lettered(config: Path, folder: Path) -> Path:
    """Eight letters that are rubbish with control characters, of which five are only counted, and a late one."""
    path = folder / "netpredict.toml"
    text = config.read_text().replace(str(config.parent), str(folder))
    path.write_text(text.replace('schema = "traffic"', 'schema = "traffic"\ndead_letters_max = 3'))
    log = MemoryLog({"ran.traffic": 1, "ran.channel-state": 1})
    for minute in (0, 1, 3, 4, 2):
        time_us = 1_767_571_200_000_000 + minute * 60_000_000
        row = Traffic("netpredict.traffic/1", "sim-00000-1", time_us, prb_use_dl_percent=40.0 + minute)
        log.append("ran.traffic", b"key", msgspec.json.encode(row), time_us // 1000)
    for _ in range(8):
        log.append("ran.traffic", b"\x1b[31m", b"\x1b]0;owned\x07[bold]", time_us // 1000)
    read = load_config(path)
    backtest.run(read, log, read.store.url)
    return path


def test_dead_letters_are_counted_replayed_and_dropped(cli, config: Path, tmp_path: Path) -> None:
    where = ("--config", lettered(config, tmp_path))
    (late, rubbish) = sorted(
        document(cli("dead-letters", "count", *where, "--json"))["reasons"], key=lambda r: r["kept"]
    )
    assert (late["reason"], late["kept"], late["counted"]) == ("late", 1, 0)
    assert (rubbish["reason"], rubbish["kept"], rubbish["counted"], rubbish["dead_letters"]) == ("undecodable", 3, 5, 8)
    (found,) = document(cli("dead-letters", "list", "--ranges", *where, "--json"))["ranges"]
    assert (found["first_offset"], found["last_offset"], found["letters"]) == (8, 12, 5)
    for verb in ("list", "count", ("list", "--ranges")):
        printed = cli("dead-letters", *([verb] if isinstance(verb, str) else verb), *where)
        assert printed.exit_code == 0
        assert all(character.isprintable() or character == "\n" for character in printed.stdout)
    offsets = [
        row["offset"]
        for row in document(cli("dead-letters", "list", "--to-offset", 5, *where, "--json"))["dead_letters"]
    ]
    assert offsets == [4, 5]
    assert document(cli("dead-letters", "replay", "--reason", "late", *where, "--json")) == {
        "asked": 1,
        "waiting": 0,
        "cut": 0,
        "left": 0,
    }
    (waiting,) = document(cli("dead-letters", "list", "--reason", "late", *where, "--json"))["dead_letters"]
    assert waiting["waiting"] is True
    again = cli("dead-letters", "replay", "--reason", "late", *where)
    assert "nothing to do" in again.stdout
    assert document(cli("dead-letters", "drop", "--all", *where, "--json")) == {"dropped": {"letters": 3, "ranges": 1}}
    assert document(cli("dead-letters", "count", *where, "--json"))["total"] == 1


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_verb_that_changes_letters_wants_to_know_which(cli, config: Path, verb: str) -> None:
    result = cli("dead-letters", verb, "--config", config)
    assert result.exit_code == 2
    assert "say which" in result.stderr


def test_letters_that_were_only_counted_cannot_be_replayed(cli, config: Path, tmp_path: Path) -> None:
    where = ("--config", lettered(config, tmp_path))
    result = cli("dead-letters", "replay", "--topic", "ran.traffic", "--from-offset", 9, *where)
    assert result.exit_code == 1
    assert "only counted" in result.stderr


def test_the_schema_of_a_store_is_created_and_checked(cli, tmp_path: Path) -> None:
    url = ("--url", f"sqlite:///{tmp_path}/new.db")
    assert document(cli("db", "current", *url, "--json"))["current"] is None
    result = cli("db", "check", *url, "--json")
    assert result.exit_code == 78
    assert msgspec.json.decode(result.stdout)["ok"] is False
    upgraded = document(cli("db", "upgrade", *url, "--json"))
    assert upgraded["before"] is None
    assert document(cli("db", "current", *url, "--json")) == {
        "current": upgraded["current"],
        "head": upgraded["current"],
    }
    assert document(cli("db", "check", *url, "--json")) == {"ok": True, "error": None}
    assert "already at" in cli("db", "upgrade", *url).stdout


def test_an_upgrade_beside_a_writer_is_refused_with_69(cli, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert cli("db", "upgrade", "--url", url).exit_code == 0
    with SqlStore(url):
        assert cli("db", "upgrade", "--url", url).exit_code == 69


def test_crossings_rank_radio_cells_by_the_time_until_a_level_is_passed(cli, config: Path) -> None:
    told = document(cli("crossings", "--above", 10, "--config", config, "--json"))
    rows = told["crossings"]
    assert rows
    assert {row["stream"] for row in rows} == {"traffic"}
    times = [math.inf if row["middle_s"] is None else row["middle_s"] for row in rows]
    assert times == sorted(times)
    for row in rows:
        assert row["earliest_s"] <= min(
            times[rows.index(row)], math.inf if row["latest_s"] is None else row["latest_s"]
        )
        assert row["middle_s"] == 0 if row["last_value"] > 10 else row["earliest_s"] >= 60
    assert document(cli("crossings", "--above", 100, "--config", config, "--json"))["crossings"] == []
    assert "within its horizon" in cli("crossings", "--above", 100, "--config", config).stderr


def test_crossings_of_an_unknown_stream_are_refused(cli, config: Path) -> None:
    result = cli("crossings", "--above", 10, "--stream", "none", "--config", config)
    assert result.exit_code != 0
    assert "no stream" in result.stderr
