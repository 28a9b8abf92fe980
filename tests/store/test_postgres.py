"""What holds on PostgreSQL alone: sessions that break, instances that share a store, secrets and TLS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from netpredict.errors import ConfigError, StoreError, StoreUnavailable
from netpredict.store import compare, migrate
from netpredict.store.commit import Commit
from netpredict.store.database import Connection, database_of
from netpredict.store.history import History
from netpredict.store.login import login_of
from netpredict.store.outbox import CLAIM_US, SqlOutbox
from netpredict.store.postgres import PostgresDatabase, regular_expression, translated
from netpredict.store.publication import SqlPublications
from netpredict.store.sql import SqlStore
from netpredict.types import Outcome, OutcomeKind, TopicPartition
from tests.services.certificates import SAN, Authority
from tests.services.postgres import USER, Postgres
from tests.services.process import ServiceMissing
from tests.store.store_builders import (
    STREAM,
    TOPIC_PARTITION,
    assign,
    firing,
    forecasts,
    full_commit,
    lane_commit,
    record,
    register,
    run,
    take,
)

PATIENCE_S = 1.0
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"


@pytest.fixture
def dialect() -> str:
    return "postgresql"


@pytest.fixture
def other(store: SqlStore) -> Iterator[SqlStore]:
    """Another instance on the same database, which does not wait long."""
    with SqlStore(f"{store.url}?patience_s={PATIENCE_S}") as other:
        yield other


@pytest.fixture
def admin(store: SqlStore) -> Iterator[psycopg.Connection]:
    with psycopg.connect(store.url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def cut(admin: psycopg.Connection) -> None:
    """End every other session of the database."""
    admin.execute(TERMINATE, (admin.info.backend_pid,))


def in_threads(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# -- sessions that break --------------------------------------------------------------------------------------------


def test_a_session_cut_in_a_transaction_is_retriable_and_the_writer_connects_anew(
    store: SqlStore, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, model_id = run(store, slots=1)
    before = compare.dump(store.url)
    commit = Commit([full_commit(lane, model_id, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(store, "_upsert_scores", lambda *_: cut(admin))
        with pytest.raises(StoreUnavailable):
            store.commit(commit)
    assert compare.dump(store.url) == before
    assert store.commit(commit) == set()


def test_a_session_cut_between_transactions_is_replaced_unseen(store: SqlStore, admin: psycopg.Connection) -> None:
    lane, model_id = run(store, slots=1)
    cut(admin)
    assert store.commit(Commit([full_commit(lane, model_id, 2)])) == set()
    assert len(store.models()) == 1
    cut(admin)
    assert len(store.models()) == 1  # a reader that waited in vain is replaced at once


def test_a_commit_whose_reply_was_lost_is_recognised(
    store: SqlStore, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, model_id = run(store, slots=1)
    commit = Commit([full_commit(lane, model_id, 2)])
    execute = psycopg.Connection.execute

    def lossy(connection: psycopg.Connection, query: object, *rest: object) -> object:
        done = execute(connection, query, *rest)  # type: ignore[call-overload]
        if query == "COMMIT":
            cut(admin)
            execute(connection, "SELECT 1")  # the server is gone: this is what the caller of COMMIT sees
        return done

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", lossy)
        with pytest.raises(StoreUnavailable):
            store.commit(commit)
    after = compare.dump(store.url)
    assert after["topic_progress"][0][:6] == ("group", "cells", 0, STREAM, "id-1", 20)
    assert store.commit(commit) == set()
    assert compare.dump(store.url) == after


def test_a_server_that_restarts_is_waited_for(postgres: Postgres) -> None:
    own = Postgres()
    with own:
        url = own.new_database()
        migrate.upgrade(url)
        with SqlStore(url) as store:
            lane, model_id = run(store, slots=1)
            own.kill()
            commit = Commit([full_commit(lane, model_id, 2)])
            for _ in range(2):
                with pytest.raises(StoreUnavailable) as caught:
                    store.commit(commit)
                assert own.password not in str(caught.value)
            own.start()
            assert store.commit(commit) == set()
            assert assign(store).next_offset == 20


def test_after_a_failover_the_session_to_the_old_server_is_given_up(store: SqlStore, admin: psycopg.Connection) -> None:
    lane, _ = run(store, slots=1)
    commit = Commit([lane_commit(lane, 10, 11)])
    admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_read_only = on")
    cut(admin)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="25006"):
            store.commit(commit)
    admin.execute(f"ALTER DATABASE {admin.info.dbname} RESET default_transaction_read_only")
    assert store.commit(commit) == set()


def test_a_hung_transaction_is_ended_by_the_server(store: SqlStore, other: SqlStore) -> None:
    lane, _ = run(store, slots=1)

    def hang() -> None:
        with other.database.transaction() as connection:
            connection.execute("UPDATE topic_progress SET owner = 'hung'")
            threading.Event().wait(PATIENCE_S + 0.7)
            connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailable):
        hang()
    assert store.commit(Commit([lane_commit(lane, 10, 11)])) == set()


def test_a_row_that_another_holds_is_waited_for_in_vain(store: SqlStore, other: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    with store.database.transaction() as connection:
        connection.execute("UPDATE topic_progress SET owner = 'slow'")
        with pytest.raises(StoreUnavailable, match="55P03"):
            other.commit(Commit([lane_commit(lane, 10, 11)]))


def test_sessions_have_our_settings(store: SqlStore) -> None:
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "synchronous_commit")
    with store.database.transaction() as connection:
        found = [connection.execute(f"SHOW {name}").fetchall()[0][0] for name in (*names, "application_name")]
    assert found == ["10s", "10s", "2min", "on", "netpredict"]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", StoreUnavailable),
        ("57P01", StoreUnavailable),
        ("40P01", StoreUnavailable),
        ("40001", StoreUnavailable),
        ("55P03", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("53100", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("25P03", StoreUnavailable),
        ("57014", StoreUnavailable),
        ("23505", StoreError),
        ("42601", StoreError),
        ("22021", StoreError),
    ],
)
def test_the_kind_of_error_says_whether_to_try_again(state: str, kind: type[Exception], store: SqlStore) -> None:
    error = psycopg.errors.lookup(state)("injected")
    assert isinstance(store.database, PostgresDatabase)
    assert type(translated(error, store.database._login)) is kind


def test_a_statement_that_failed_unnoticed_does_not_count_as_committed(store: SqlStore) -> None:
    def careless() -> None:
        with store.database.transaction() as connection, suppress(psycopg.Error):
            connection.execute("SELECT nonsense")

    with pytest.raises(StoreError, match="rolled back"):
        careless()


# -- several instances ----------------------------------------------------------------------------------------------


def test_an_instance_that_lost_its_lane_is_fenced_by_the_one_that_took_it(store: SqlStore, other: SqlStore) -> None:
    zombie, model_id = run(store, slots=1)
    lane = other.assign("group", TOPIC_PARTITION, STREAM, "id-1", "other")
    assert store.commit(Commit([full_commit(zombie, model_id, 2)])) == {TOPIC_PARTITION}
    assert other.commit(Commit([full_commit(lane, model_id, 2)])) == set()
    assert assign(store).next_offset == 20


def test_a_zombie_in_the_middle_of_its_commit_and_the_new_owner_never_both_write(
    store: SqlStore, other: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie, model_id = run(store, slots=1)
    begun, go_on = threading.Event(), threading.Event()
    write = SqlStore._insert_forecasts

    def slow(self: SqlStore, connection: Connection, *rest: object) -> None:
        begun.set()
        go_on.wait(20)
        write(self, connection, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlStore, "_insert_forecasts", slow)
    thread = threading.Thread(target=store.commit, args=(Commit([full_commit(zombie, model_id, 2)]),))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(StoreUnavailable):  # it holds the row: the new owner waits, and asks again
        assign(other)
    go_on.set()
    thread.join(20)
    lane = assign(other)
    assert lane.next_offset == 20


def test_epochs_taken_at_once_are_all_different(url: str) -> None:
    epochs: list[int] = []

    def take() -> None:
        with SqlStore(url) as store:
            for _ in range(10):
                epochs.append(assign(store).epoch)

    in_threads(take, take, take)
    assert sorted(epochs) == [*range(1, 31)]


def test_a_version_registered_at_once_by_all_has_one_id(url: str) -> None:
    found: list[tuple[int, ...]] = []

    def name() -> None:
        with SqlStore(url) as store:
            found.append(tuple(register(store, f"v{number}") for number in range(10)))

    in_threads(name, name, name)
    assert len(set(found)) == 1


def test_firings_of_one_object_from_two_instances_do_not_deadlock(url: str) -> None:
    with SqlStore(url) as store, SqlStore(url) as other:
        fire_in_opposite_orders(store, other)
    assert [row["next_offset"] for row in History(url).progress()] == [4, 4]


def fire_in_opposite_orders(store: SqlStore, other: SqlStore) -> None:
    places = [TopicPartition("cells", number) for number in (0, 1)]
    lanes = [assign(each, place) for each, place in zip((store, other), places, strict=True)]

    together = threading.Barrier(2)

    def fire(each: SqlStore, number: int) -> None:
        order = range(1500) if number else range(1499, -1, -1)
        for turn in range(4):
            fired = [(firing(10_000 * turn + place), ("log",)) for place in order]
            commit = lane_commit(lanes[number], turn, turn + 1, topic_partition=places[number], firings=fired)
            together.wait(30)
            assert each.commit(Commit([commit])) == set()

    in_threads(lambda: fire(store, 0), lambda: fire(other, 1))


def test_a_firing_is_shown_to_the_owner_of_its_lane_and_claimed_by_one(store: SqlStore, other: SqlStore) -> None:
    run(store, slots=1)  # owned by "tester"
    ours, theirs = SqlOutbox(store, "tester"), SqlOutbox(other, "other")
    (entry, _) = ours.pending(9)
    assert theirs.pending(9) == []
    assert take(ours, entry, 1000)
    other.assign("group", TOPIC_PARTITION, STREAM, "id-1", "other")
    assert ours.pending(9) == []
    assert len(theirs.pending(9)) == 2
    assert not take(theirs, entry, 2000)  # the old owner may be applying it
    assert take(ours, entry, 3000)
    assert take(theirs, entry, 3000 + CLAIM_US)  # it died
    record(theirs, entry.firing, entry.actuator_name, Outcome(OutcomeKind.APPLIED, "first"), 4000)
    assert not take(ours, entry, 9 * CLAIM_US)


def test_of_many_runners_one_gets_each_claim(url: str) -> None:
    with SqlStore(url) as store:
        run(store, slots=20)
        entries = [
            entry._replace(
                firing=replace(entry.firing, object_id=entry.firing.firing_id)
            )  # each of an object of its own
            for entry in SqlOutbox(store).pending(99)
        ]
    won: list[tuple[str, str]] = []

    def claim(owner: str) -> None:
        with SqlStore(url) as store:
            outbox = SqlOutbox(store, owner)
            mine = [entry for entry in entries if take(outbox, entry, 1000)]
            won.extend((entry.firing.firing_id, entry.actuator_name) for entry in mine)

    in_threads(*[lambda name=name: claim(name) for name in ("a", "b", "c")])  # type: ignore[misc]
    assert sorted(won) == sorted((entry.firing.firing_id, entry.actuator_name) for entry in entries)


def test_a_window_is_published_by_the_owner_of_its_lane(url: str) -> None:
    with SqlStore(url, publishing=True) as store:
        run(store, slots=2)
        assert len(SqlPublications(store, "group", "tester").unpublished(9)) == 2
        assert SqlPublications(store, "group", "other").unpublished(9) == []


def test_a_job_runs_on_one_instance_and_its_lock_ends_with_the_session(
    store: SqlStore, other: SqlStore, admin: psycopg.Connection
) -> None:
    with store.alone("learn") as ours, other.alone("learn") as theirs, other.alone("else") as free:
        assert (ours, theirs, free) == (True, False, True)
        cut(admin)  # the instance died
        with other.alone("learn") as theirs:
            assert theirs
    assert (store.take_turn("retrain", 60), other.take_turn("retrain", 60)) == (True, False)
    assert other.take_turn("retrain", 120)


def test_one_instance_prunes_at_a_time(store: SqlStore, other: SqlStore) -> None:
    run(store, slots=3)
    with store.database.transaction() as connection:
        assert connection.try_lock("prune")
        assert other.prune(10**15, 100) == 0
    assert other.prune(10**15, 100) > 0


def test_two_daemons_that_start_together_migrate_once(new_url: Callable[[], str]) -> None:
    url = new_url()
    in_threads(*[lambda: migrate.upgrade(url)] * 4)
    migrate.check(url)


def test_both_spellings_of_the_url_are_one_store(url: str) -> None:
    with SqlStore(url) as store:
        run(store, slots=1)
    assert len(History(url.replace("postgresql+psycopg", "postgresql")).series()) == 3


# -- text -----------------------------------------------------------------------------------------------------------


def test_odd_characters_survive_copy_and_insert(store: SqlStore) -> None:
    lane = assign(store)
    odd = ["a\tb", "c\\nd", "e\nf", "\\N", "ü€𝄞", "q\"uo'te", "100%", "x:y", "\r"]
    for start, count in ((0, len(odd)), (100, 99)):
        keys = [f"{odd[number % len(odd)]}{start + number}" for number in range(count)]
        series = [(lane.lane_id * 2**32 + start + number, key, 1, True) for number, key in enumerate(keys)]
        store.commit(Commit([lane_commit(lane, start, start + 100, new_series=series)]))
        assert {row[1] for row in assign(store).series} >= set(keys)
        lane = assign(store)


def test_a_character_that_the_server_cannot_hold_is_replaced(store: SqlStore) -> None:
    store.record_audit("root\0", "test", {})
    assert History(store.url).audit()[0]["who"] == "root\ufffd"


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("cell-*", "^(?:cell\\-.*)$"),
        ("a?b", "^(?:a.b)$"),
        ("[a-c]x", "^(?:[a-c]x)$"),
        ("[^a]x", "^(?:[^a]x)$"),
        ("[x", "^(?:\\[x)$"),
        ("a|b.", "^(?:a\\|b\\.)$"),
    ],
)
def test_a_shell_pattern_becomes_a_regular_expression(pattern: str, expression: str) -> None:
    assert regular_expression(pattern) == expression


# -- getting in -----------------------------------------------------------------------------------------------------


def test_the_password_comes_from_a_file_that_others_cannot_read(url: str, postgres: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(postgres.password + "\n")
    file.chmod(0o600)
    bare = f"{url.replace(':' + postgres.password, '')}?password_file={file}"
    assert migrate.current(bare) == migrate.head()
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="chmod o="):
        migrate.current(bare)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        migrate.current(bare)
    file.touch(0o600)
    with pytest.raises(ConfigError, match="one line of printable text"):
        migrate.current(bare)


def test_a_wrong_password_says_so_without_it(url: str, postgres: Postgres) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        migrate.current(url.replace(postgres.password, "nottherightone"))
    assert "authentication failed" in str(caught.value)
    assert "nottherightone" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("postgresql://u:secret@db.example/x", False),
        ("postgresql://u:secret@db.example/x?sslmode=prefer", False),
        ("postgresql://u:secret@10.0.0.9/x?sslmode=disable", False),
        ("postgresql://u:secret@db.example/x?sslmode=require", True),
        ("postgresql://u:secret@db.example/x?sslmode=verify-full", True),
        ("postgresql://u@db.example/x?password_file=/etc/secret", False),
        ("postgresql://u:secret@localhost/x", True),
        ("postgresql://u:secret@[::1]/x", True),
        ("postgresql://u:secret@/x?host=/run/postgresql", True),
        ("postgresql://u:secret@localhost/x?hostaddr=10.0.0.9", False),
        ("postgresql://u:secret@/x?host=localhost&host=db.example", False),
    ],
)
def test_a_password_goes_to_another_host_by_tls_only(url: str, allowed: bool) -> None:
    with ExitStack() as stack:
        if not allowed:
            caught = stack.enter_context(pytest.raises(ConfigError, match="sslmode=verify-full"))
        assert "secret" not in database_of(url).name
    assert allowed or "secret" not in str(caught.value)


def test_a_url_that_libpq_does_not_know_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        database_of("postgresql://u@localhost/x?nonsense=1")


def test_what_is_in_the_login_is_not_shown() -> None:
    from sqlalchemy.engine import make_url

    assert "secret" not in repr(login_of(make_url("postgresql://u:secret@localhost/x")))


def test_many_forecasts_are_the_same_by_copy_as_by_insert(store: SqlStore) -> None:
    lane, model_id = assign(store), register(store)
    store.commit(Commit([lane_commit(lane, 0, 1, forecasts=[forecasts(lane, model_id, 1, range(10))])]))
    store.commit(Commit([lane_commit(lane, 1, 2, forecasts=[forecasts(lane, model_id, 2, range(500))])]))
    with store.database.reader() as connection:
        rows = connection.execute("SELECT ticks FROM forecast ORDER BY slot_time_us, series_id").fetchall()
    few, many = forecasts(lane, model_id, 1, range(10)).ticks, forecasts(lane, model_id, 2, range(500)).ticks
    assert [text for (text,) in rows] == [str(row).replace(" ", "") for row in [*few.tolist(), *many.tolist()]]


# -- TLS ------------------------------------------------------------------------------------------------------------


def signed(authority: Authority, name: str, extension: str = SAN) -> tuple[Path, Path]:
    """Certificate and key of a name."""
    authority.issue(name, name, extension)
    return authority.folder / f"{name}.crt", authority.folder / f"{name}.key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    try:
        return Authority(tmp_path_factory.mktemp("tls") / "right")
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def encrypted(authority: Authority) -> Iterator[Postgres]:
    """A server with a certificate for 127.0.0.1, which wants one of its clients too where they give one."""
    certificate, key = signed(authority, "server", "subjectAltName=IP:127.0.0.1")
    files = {"server.crt": certificate.read_bytes(), "server.key": key.read_bytes()}
    files["authority.crt"] = authority.ca_file.read_bytes()
    settings = {"ssl": "on", "ssl_cert_file": "{folder}/server.crt", "ssl_key_file": "{folder}/server.key"}
    with Postgres(settings | {"ssl_ca_file": "{folder}/authority.crt"}, files) as server:
        yield server


def test_a_store_is_reached_by_tls_with_the_server_and_the_client_proven(
    encrypted: Postgres, authority: Authority
) -> None:
    certificate, key = signed(authority, USER)
    url = f"{encrypted.new_database()}?sslmode=verify-full&sslrootcert={authority.ca_file}"
    migrate.upgrade(url)
    with SqlStore(f"{url}&sslcert={certificate}&sslkey={key}") as store:
        run(store, slots=1)
        with store.database.reader() as connection:
            rows = connection.execute("SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchall()
    assert rows == [(True, f"/CN={USER}")]


def test_a_server_of_another_authority_is_refused(encrypted: Postgres, tmp_path: Path) -> None:
    wrong = Authority(tmp_path / "wrong")
    with pytest.raises(StoreUnavailable, match="certificate verify failed") as caught:
        migrate.current(f"{encrypted.url()}?sslmode=verify-full&sslrootcert={wrong.ca_file}")
    assert encrypted.password not in str(caught.value)


def test_a_server_of_another_name_is_refused(encrypted: Postgres, authority: Authority) -> None:
    url = encrypted.url().replace("127.0.0.1", "localhost")
    with pytest.raises(StoreUnavailable, match="does not match host name"):
        migrate.current(f"{url}?sslmode=verify-full&sslrootcert={authority.ca_file}")


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(postgres: Postgres) -> None:
    with pytest.raises(StoreUnavailable, match="does not support SSL"):
        migrate.current(f"{postgres.url()}?sslmode=require")
