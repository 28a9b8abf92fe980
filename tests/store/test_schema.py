from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import netpredict
from netpredict.errors import AlreadyRunning, ConfigError, StoreDamaged, StoreError, StoreUnavailable
from netpredict.store import migrate, schema, sqlite
from netpredict.store.database import database_of
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from tests.store.conftest import NewUrl
from tests.store.store_builders import LAYOUT, PERIOD_US, forecasts, run, slot_time

SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])


def test_the_migrations_build_what_the_metadata_says(url: str) -> None:
    with database_of(url).inspecting() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


@SQLITE
def test_the_migrated_view_and_hot_tables_are_those_of_the_schema(url: str) -> None:
    with database_of(url).reader() as connection:
        sql = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    assert sql["forecast_point"] == schema.FORECAST_POINT["sqlite"]
    without_rowid = {
        table.name for table in schema.metadata.sorted_tables if table.dialect_options["sqlite"]["with_rowid"] is False
    }
    assert {"forecast", "observation"} <= without_rowid
    assert {name for name, text in sql.items() if "WITHOUT ROWID" in text} == without_rowid


@SQLITE
def test_the_migrated_indexes_are_of_the_rows_that_the_schema_says(url: str) -> None:
    """Alembic compares their columns only."""
    with database_of(url).reader() as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
    migrated = {name: sql.partition(" WHERE ")[2] for name, sql in rows}
    indexes = [index for table in schema.metadata.sorted_tables for index in table.indexes]
    for dialect in ("sqlite", "postgresql"):
        declared = {index.name: index.dialect_options[dialect]["where"] for index in indexes}
        assert {name: "" if where is None else str(where) for name, where in declared.items()} == migrated
    assert sum(map(bool, migrated.values())) >= 7


def test_both_dialects_of_the_view_stand_in_the_migration() -> None:
    text = (migrate.scripts_folder() / "versions" / "0001_first_schema.py").read_text(encoding="utf-8")
    assert all(view in text for view in schema.FORECAST_POINT.values())


def test_alembic_is_a_folder_and_no_package() -> None:
    root = Path(netpredict.__file__).parent.parent
    assert not (root / "alembic" / "__init__.py").exists()


def test_upgrade_twice_changes_nothing(url: str) -> None:
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    migrate.check(url)


def test_a_store_of_the_first_schema_keeps_its_rows(new_url: NewUrl) -> None:
    url = new_url()
    migrate.upgrade(url, "0001")
    with database_of(url).migrating() as connection:
        names = "slot_time_us, series_id, model_id, layout_id, sources, quality, ticks, observed"
        values = "(1, 2, 3, 4, 'm', 0, '[5]', '[6]')"
        connection.exec_driver_sql(f"INSERT INTO forecast({names}) VALUES {values}")
        connection.exec_driver_sql("INSERT INTO dead_letter VALUES ('t', 0, 7, 'invalid', '', 5, NULL, NULL, 1)")
    with pytest.raises(StoreError, match="netpredict db upgrade"):
        migrate.check(url)
    migrate.upgrade(url)
    migrate.check(url)
    with database_of(url).reader() as connection:
        assert connection.execute("SELECT ticks, seasonal FROM forecast").fetchall() == [("[5]", None)]
        aging = connection.execute("SELECT at_us / 1000000000000000, request_id FROM dead_letter").fetchall()
    assert aging == [(1, None)], "a letter of an older release ages from the upgrade on"


def test_what_waits_in_a_store_of_an_older_release_expires_with_its_effect(new_url: NewUrl) -> None:
    url = new_url()
    migrate.upgrade(url, "0008")
    with database_of(url).migrating() as connection:
        names = "firing_id, lane_id, hook, stream, object_id, attribute, value, why, mode, slot_time_us"
        waits = "outbox(firing_id, actuator, hook, object_id, attribute, held, expires_at_us, kind)"
        lane = "lane_id, group_name, topic, partition, stream, topic_id, epoch, owner"
        connection.exec_driver_sql(f"INSERT INTO topic_progress({lane}) VALUES (1, 'g', 't', 0, 's', '', 1, '')")
        for name, expires_us, kind in (("long", 900, "NULL"), ("short", 100, "NULL"), ("done", 900, "'applied'")):
            connection.exec_driver_sql(
                f"INSERT INTO firing({names}, expires_at_us, effect_until_us)"
                f" VALUES ('{name}', 1, 'h', 's', 'o', 'a', '{{}}', '{{}}', 'assist', 0, {expires_us}, 500)"
            )
            connection.exec_driver_sql(
                f"INSERT INTO {waits} VALUES ('{name}', 'log', 'h', 'o', 'a', 1, {expires_us}, {kind})"
            )
    migrate.upgrade(url)
    with database_of(url).reader() as connection:
        rows = connection.execute(
            "SELECT f.firing_id, f.expires_at_us, o.expires_at_us FROM firing AS f"
            " JOIN outbox AS o ON o.firing_id = f.firing_id ORDER BY f.firing_id"
        ).fetchall()
    assert [tuple(row) for row in rows] == [("done", 900, 900), ("long", 500, 500), ("short", 100, 100)]


def test_a_store_without_schema_is_refused(new_url: NewUrl, dialect: str, tmp_path: Path) -> None:
    url = new_url()
    assert migrate.current(url) is None
    with pytest.raises(StoreError, match="netpredict db upgrade"):
        migrate.check(url)
    with pytest.raises(StoreError, match="netpredict db upgrade"):
        SqlStore(url).start()
    with pytest.raises(StoreError, match="netpredict db upgrade"):
        History(url).progress()
    assert dialect != "sqlite" or not [*tmp_path.iterdir()]


def test_an_unknown_schema_is_refused(url: str) -> None:
    with database_of(url).migrating() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="netpredict db upgrade"):
        migrate.check(url)
    with pytest.raises(StoreError, match="9999"):
        migrate.upgrade(url)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(StoreError):
        migrate.check(f"sqlite:///{tmp_path}/text.db")


@SQLITE
def test_a_second_writer_is_refused_and_told_who_holds_the_lock(store: SqlStore) -> None:
    with pytest.raises(AlreadyRunning, match=r"store\.db\.lock is held by process \d+"):
        SqlStore(store.url).start()
    with pytest.raises(AlreadyRunning):
        migrate.upgrade(store.url)
    store.close()
    with SqlStore(store.url):
        pass


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "postgresql://u:secret@h/db", "mysql://u:secret@h/db", "nonsense"],
)
def test_a_url_without_a_file_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SqlStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_IOERR | (1 << 8), StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT, StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT, StoreError),
    ],
)
def test_the_kind_of_error_says_whether_to_try_again(code: int, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode, error.sqlite_errorname = code, "INJECTED"
    assert type(sqlite.translated(error, Path("x"))) is kind


def test_forecast_point_has_a_row_for_each_target_time_kpi_and_level(store: SqlStore) -> None:
    lane, model_id = run(store, slots=2)
    with store.database.reader() as connection:
        cursor = connection.execute(
            "SELECT * FROM forecast_point WHERE series = 'cell-1' AND slot_time_us = :at", {"at": slot_time(2)}
        )
        rows = [dict(zip(cursor.names, row, strict=True)) for row in cursor.fetchall()]
    ticks = forecasts(lane, model_id, 2, range(3)).ticks[1].reshape(2, 4, 3)
    assert len(rows) == ticks.size
    for row in rows:
        kpi, lead, level = LAYOUT.kpis.index(row["kpi"]), row["lead_steps"], LAYOUT.levels.index(row["level"])
        assert float(row["level"]) in LAYOUT.levels
        assert row["value"] == ticks[kpi, lead - 1, level] / 10 ** LAYOUT.decimals[kpi]
        assert row["target_time_us"] == slot_time(2) + lead * PERIOD_US
        assert row["source"] == ("model", "naive")[kpi]
        assert (row["stream"], row["predictor"], row["version"], row["quality"]) == ("traffic", "gru", "v1", 0)
    assert rows[0]["target_time"] == "1970-01-01T00:00:33.000000Z"
