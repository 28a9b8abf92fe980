"""The control socket: the command line writes through a daemon that holds the store, and nobody can harm it thereby."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from netpredict.cli.writing import opened_store
from netpredict.errors import AlreadyRunning, ConfigError, StoreError, StoreUnavailable
from netpredict.operate import control
from netpredict.operate.control import ControlSocket, ask, control_folder
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.store.verbs import MESSAGE_BYTES_MAX, caller, verbs
from netpredict.types import TopicPartition


class Holder:
    """A store that is held, with its control socket, as the daemon does it."""

    def __init__(self, folder: Path, uids: frozenset[int] | None = None) -> None:
        self.url = f"sqlite:///{folder}/store.db"
        migrate.upgrade(self.url)
        self.store = SqlStore(self.url)
        self.store.start()
        self.control = ControlSocket(control_folder(str(folder / "data")), self.store, uids)
        self.control.start()
        self.store.announce(self.control.path)

    def audited(self) -> list[str]:
        return [entry["what"] for entry in History(self.url).audit(limit=1000)]

    def stop(self) -> None:
        self.control.stop()
        self.store.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    held = Holder(tmp_path)
    yield held
    held.stop()


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect(str(path))
    return client


def question(verb: str, **arguments: object) -> bytes:
    return msgspec.json.encode({"verb": verb, "arguments": arguments}) + b"\n"


def audit_question(what: str = "tried") -> bytes:
    return question("record_audit", who="me", what=what, detail={})


def test_a_verb_on_a_held_store_goes_through_the_socket_and_gives_what_the_store_gives(holder: Holder) -> None:
    lane_id = holder.store.assign("g", TopicPartition("t", 0), "traffic", "", "me").lane_id
    with opened_store(holder.url) as store:
        assert not isinstance(store, SqlStore)
        first = store.register_model("traffic", "gru", "v1", "gru", "/a", {"skill": 0.1}, "active")
        second = store.register_model("traffic", "gru", "v2", "gru", "/b", {}, stage="candidate")
        assert store.move_model(second, "active", "me", "model_promoted", {"why": "better"}) == "v1"
        assert store.request(lane_id, "move", {"series": "a", "deep": [1, {"x": None}]}) == 1
        with pytest.raises(StoreError, match="no model version has the id 99"):
            store.move_model(99, "active", "me", "model_promoted", {})
    rows = {row["model_id"]: row["stage"] for row in History(holder.url).models()}
    assert rows == {first: "retired", second: "active"}
    assert [request.payload for request in holder.store.requests()] == [{"series": "a", "deep": [1, {"x": None}]}]


def test_every_verb_is_one_of_the_store_with_the_same_arguments() -> None:
    for name, (arguments, _) in verbs().items():
        assert name in vars(SqlStore)
        code = vars(SqlStore)[name].__code__
        assert set(arguments.__struct_fields__) <= set(code.co_varnames[1 : code.co_argcount])


def test_a_store_that_nobody_holds_is_written_directly(holder: Holder) -> None:
    holder.stop()
    with opened_store(holder.url) as store:
        assert isinstance(store, SqlStore)
        store.record_audit("me", "tried", {})
    assert holder.audited() == ["tried"]


def test_after_a_kill_the_stale_socket_stops_nobody(holder: Holder, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tests.operate.test_control import Holder;"
        f"Holder(Path({str(tmp_path / 'killed')!r})); os.kill(os.getpid(), 9)"
    )
    (tmp_path / "killed").mkdir()
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -9
    path = control_folder(str(tmp_path / "killed/data")) / "socket"
    assert path.exists()
    with opened_store(f"sqlite:///{tmp_path}/killed/store.db") as store:
        assert isinstance(store, SqlStore)
    again = Holder(tmp_path / "killed")
    assert b'"error":""' in ask(path, audit_question(), 20)
    again.stop()
    assert not path.exists()


def test_a_process_that_holds_the_store_without_a_socket_is_waited_for_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netpredict.cli.writing.WAIT_S", 0.3)
    url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)
    store = SqlStore(url)
    store.start()
    with pytest.raises(AlreadyRunning, match=rf"held by process {os.getpid()}"), opened_store(url):
        pass
    threading.Timer(0.1, store.close).start()
    with opened_store(url) as mine:
        mine.record_audit("me", "waited", {})


def test_only_the_owner_may_enter(holder: Holder) -> None:
    assert stat.S_IMODE(holder.control.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(holder.control.path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try another user")
def test_another_user_is_refused_even_when_the_folder_stands_open(holder: Holder, tmp_path: Path) -> None:
    tried = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]);"
        f"s.sendall({audit_question('foreign')!r}); sys.exit(len(s.recv(100)))"
    )

    def as_nobody() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", tried, str(holder.control.path)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    assert "PermissionError" in as_nobody().stderr
    for folder in (holder.control.path, *holder.control.path.parents):
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(0o777)
    after = as_nobody()  # it could connect, and got no answer
    assert after.returncode == 0 or "BrokenPipeError" in after.stderr or "ConnectionResetError" in after.stderr
    assert holder.audited() == []


def test_a_user_who_is_not_expected_gets_no_answer(tmp_path: Path) -> None:
    held = Holder(tmp_path, uids=frozenset({os.geteuid() + 1}))
    with pytest.raises(StoreUnavailable, match="look before you repeat"):
        ask(held.control.path, audit_question(), 20)
    assert held.audited() == []
    held.stop()


BAD = {
    "no JSON": b"\x00\xff\x1b[2J\n",
    "unknown verb": question("drop_everything"),
    "private": question("_signature"),
    "not declared": question("prune", before_us=0, rows=1),
    "wrong type": question("request", lane_id="1; DROP TABLE series", kind="move", payload={}),
    "argument lacks": question("record_audit", who="me", what="x"),
    "argument too many": question("record_audit", who="me", what="x", detail={}, more=1),
    "no object": b"[]\n",
    "deep": b'{"verb":"record_audit","arguments":' + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_question_is_answered_with_an_error_and_changes_nothing(holder: Holder, bad: bytes) -> None:
    answer = msgspec.json.decode(ask(holder.control.path, bad, 20))
    assert answer["error"] == "StoreError"
    assert holder.audited() == []
    assert b'"error":""' in ask(holder.control.path, audit_question(), 20)


def test_a_question_that_never_ends_is_cut_off_and_memory_stays_bounded(holder: Holder) -> None:
    with connected(holder.control.path) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(b"x" * (64 * MESSAGE_BYTES_MAX))
    assert b'"error":""' in ask(holder.control.path, audit_question(), 20)


def test_a_slow_client_keeps_nobody_waiting_and_is_dropped(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "QUESTION_S", 3.0)
    with connected(holder.control.path) as slow:
        slow.sendall(b'{"verb":')
        began_s = time.monotonic()
        assert b'"error":""' in ask(holder.control.path, audit_question(), 20)
        assert time.monotonic() - began_s < 2.9
        assert slow.recv(100) == b""
        assert 2.9 < time.monotonic() - began_s < 15


def test_no_more_than_so_many_connections_are_held_and_they_free_themselves(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "QUESTION_S", 1.0)
    idle = [connected(holder.control.path) for _ in range(control.CONNECTIONS_MAX)]
    with connected(holder.control.path) as one_more:
        assert one_more.recv(100) == b""
    time.sleep(1.2)
    assert b'"error":""' in ask(holder.control.path, audit_question(), 20)
    for client in idle:
        client.close()


def test_verbs_from_many_processes_at_once_all_count(holder: Holder) -> None:
    store = caller(lambda asked: ask(holder.control.path, asked, 20))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.record_audit("me", f"n{number}", {}), range(40)))
    assert sorted(holder.audited()) == sorted(f"n{number}" for number in range(40))


def test_a_path_longer_than_an_address_serves(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    held = Holder(deep)
    assert len(str(held.control.path)) > 250
    with opened_store(held.url) as store:
        store.record_audit("me", "far", {})
    assert held.audited() == ["far"]
    held.stop()


def test_a_second_daemon_of_the_same_data_directory_is_refused(holder: Holder) -> None:
    second = ControlSocket(holder.control.path.parent, holder.store)
    with pytest.raises(AlreadyRunning, match=r"data_dir"):
        second.start()
    second.stop()
    assert b'"error":""' in ask(holder.control.path, audit_question(), 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "control"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        ControlSocket(folder, SqlStore(f"sqlite:///{tmp_path}/store.db")).start()


def test_a_verb_that_gets_no_answer_says_that_it_may_have_been_done(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "socket"))
        silent.listen()
        with pytest.raises(StoreUnavailable, match="may have done it") as caught:
            ask(tmp_path / "socket", audit_question(), 0.2)
    assert caught.value.exit_code == 75
