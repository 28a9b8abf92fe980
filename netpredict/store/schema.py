"""The tables of the store, dialect neutral, and the view ``forecast_point``.

Times are integers ``*_us`` since the epoch, UTC. Hot tables are time-first, so that inserts stay at the end of the
B-tree; they carry no foreign keys, which would cost a look-up a row.
"""

from __future__ import annotations

import sqlalchemy as sa

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits everywhere; on SQLite the name INTEGER makes a primary key the rowid."""

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _whole(name: str, *, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, Big, nullable=False, server_default=default)


def _index(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Of the rows of which ``where`` is true."""
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _key(name: str) -> sa.Column[int]:
    """A part of a primary key whose numbers come from elsewhere."""
    return sa.Column(name, Big, primary_key=True, autoincrement=False)


topic_progress = sa.Table(
    "topic_progress",
    metadata,
    sa.Column("lane_id", Big, primary_key=True),
    _text("group_name"),
    _text("topic"),
    _whole("partition"),
    _text("stream"),
    _text("topic_id"),
    sa.Column("next_offset", Big),  # NULL: never committed
    _whole("epoch"),
    _text("owner"),
    _whole("accepted", default="0"),
    _whole("duplicate", default="0"),
    _whole("late", default="0"),
    _whole("dead", default="0"),
    _whole("control", default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("group_name", "topic", "partition"),
)

series = sa.Table(
    "series",
    metadata,
    _key("series_id"),
    _whole("lane_id"),
    _text("key"),
    _whole("first_slot"),
    sa.Column("scored", sa.Boolean, nullable=False),
    sa.Column("retired_us", Big),  # NULL: live
    _index("ix_series_live", "lane_id", "key", where="retired_us IS NULL", unique=True),
)

state_layout = sa.Table("state_layout", metadata, _key("layout_id"), _text("layout"))

series_state = sa.Table(
    "series_state",
    metadata,
    _key("series_id"),
    _whole("slot"),
    _whole("layout_id"),
    _whole("checksum"),
    sa.Column("state", sa.LargeBinary, nullable=False),
)

forecast_layout = sa.Table(
    "forecast_layout",
    metadata,
    _key("layout_id"),
    _text("stream"),
    _text("kpis"),
    _text("decimals"),
    _text("levels"),
    _whole("horizon_steps"),
    _whole("period_us"),
    _whole("created_us"),
)

column_layout = sa.Table(
    "column_layout",
    metadata,
    _key("layout_id"),
    _text("stream"),
    _text("columns"),
    _text("decimals"),
    _whole("created_us"),
)

model_version = sa.Table(
    "model_version",
    metadata,
    sa.Column("model_id", Big, primary_key=True),
    _text("stream"),
    _text("predictor"),
    _text("version"),
    _text("plugin"),
    _text("folder"),
    _text("stage"),
    _whole("created_us"),
    _text("scores"),
    sa.UniqueConstraint("stream", "predictor", "version"),
)

forecast = sa.Table(
    "forecast",
    metadata,
    _key("slot_time_us"),
    _key("series_id"),
    _key("model_id"),
    _whole("layout_id"),
    _text("sources"),  # a letter of SOURCE_LETTERS for each KPI
    _whole("quality"),
    _text("ticks"),  # JSON, flat; null = missing
    _text("observed"),  # JSON, one number a KPI
    sa.Column("seasonal", sa.Text),  # JSON, flat, one number a KPI and lead; NULL: the stream has no season
    sqlite_with_rowid=False,
)

observation = sa.Table(
    "observation",
    metadata,
    _key("slot_time_us"),
    _key("series_id"),
    _whole("layout_id"),
    _whole("event_time_us"),
    _whole("flags"),
    _text("ticks"),
    sqlite_with_rowid=False,
)

score = sa.Table(
    "score",
    metadata,
    _key("lane_id"),
    _key("bucket"),
    _key("model_id"),
    _key("source"),
    sa.Column("kpi", sa.Text, primary_key=True),
    _key("lead_steps"),
    _whole("n"),
    _whole("abs_ticks"),
    _text("square_ticks"),  # decimal digits: the sum may pass 64 bits
    _whole("naive_abs_ticks"),
    _text("below"),
    _text("pinball"),
    _whole("flat", default="0"),
    _whole("truth_abs_ticks", default="0"),
    _whole("seasonal_abs_ticks", default="0"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
    sqlite_with_rowid=False,
)

state_anchor = sa.Table(
    "state_anchor",
    metadata,
    _key("slot_time_us"),  # of the last slot that the state has seen
    _key("series_id"),
    _whole("layout_id"),
    _whole("checksum"),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

bucket_mark = sa.Table(
    "bucket_mark",
    metadata,
    _key("begins_us"),
    _key("lane_id"),
    _text("mark"),  # JSON: config, versions and calibration from here on
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
    sqlite_with_rowid=False,
)

publication = sa.Table(
    "publication",
    metadata,
    _key("lane_id"),
    _key("next_offset"),  # of the commit whose forecasts and firings Kafka has not acknowledged yet
    _whole("from_time_us"),  # their slot times, both ends included
    _whole("until_time_us"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
    sqlite_with_rowid=False,
)

control_journal = sa.Table(
    "control_journal",
    metadata,
    _key("lane_id"),
    _key("effective_offset"),
    _key("number"),
    _text("kind"),
    _text("payload"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
)

control_request = sa.Table(
    "control_request",
    metadata,
    sa.Column("request_id", Big, primary_key=True),
    _whole("lane_id"),
    _text("kind"),
    _text("payload"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
    sqlite_autoincrement=True,  # no number twice: a lane remembers those that it took
)
"""What waits to enter the control journal; the commit in which it takes effect deletes it."""

firing = sa.Table(
    "firing",
    metadata,
    sa.Column("firing_id", sa.Text, primary_key=True),
    _whole("lane_id"),
    _text("hook"),
    _text("stream"),
    _text("object_id"),
    _text("attribute"),
    _text("value"),
    _text("why"),
    _text("mode"),
    _whole("slot_time_us"),
    _whole("expires_at_us"),
    _whole("effect_until_us"),
    sa.Column("series", sa.Text, nullable=False, server_default=""),  # its key; the last field is the radio cell
    sa.Column("group_name", sa.Text, nullable=False, server_default=""),  # of radio cells
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
    sa.Index("ix_firing_slot_time_us", "slot_time_us"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("number", Big, primary_key=True),  # rises in commit order
    _text("firing_id"),
    _text("actuator"),
    _text("hook"),
    _text("object_id"),
    _text("attribute"),
    sa.Column("kind", sa.Text),  # NULL: pending
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("attempts", Big),
    sa.Column("at_us", Big),
    sa.Column("claimed_by", sa.Text),  # the instance that applies it, until then
    sa.Column("claimed_until_us", Big),
    _whole("expires_at_us", default="0"),
    _whole("held", default="0"),  # 1: waits until a person approves it
    sa.Column("radio_cell_id", sa.Text, nullable=False, server_default=""),
    sa.Column("checks", sa.Text),  # JSON: what the guards said
    sa.Column("reply", sa.Text),  # what the actuator answered, before it was verified
    # the firing whose value it repeats; of what was applied: while that held, so that nothing was changed
    sa.Column("refreshes", sa.Text, nullable=False, server_default=""),
    _whole("changed", default="0"),  # 1: it has set a new value, or may have
    sa.UniqueConstraint("firing_id", "actuator"),
    sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"]),
    _index("ix_outbox_pending", "actuator", "number", where="kind IS NULL AND held = 0"),
    _index("ix_outbox_expiry", "expires_at_us", where="kind IS NULL"),
    _index("ix_outbox_waiting", "hook", "object_id", "attribute", where="kind IS NULL"),
    _index("ix_outbox_applied", "object_id", "attribute", "at_us", where="kind = 'applied'"),
    _index("ix_outbox_refreshes", "refreshes", where="refreshes <> ''"),
    _index("ix_outbox_rate", "hook", "at_us", where="changed = 1"),
)

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("object_id", sa.Text, primary_key=True),
    sa.Column("attribute", sa.Text, primary_key=True),
    _text("hook"),
    _text("firing_id"),
    _whole("priority"),
    _whole("until_us"),
    _whole("taken_us"),
)
"""Which firing of which hook holds an attribute of an object, until its effect ends or a higher priority takes it."""

breaker = sa.Table(
    "breaker",
    metadata,
    sa.Column("hook", sa.Text, primary_key=True),
    sa.Column("group_name", sa.Text, primary_key=True),
    _text("state"),
    _text("said"),
    _whole("n"),
    sa.Column("skill", sa.Double),
    sa.Column("coverage", sa.Double),
    _whole("since_us"),  # of the state
    _whole("at_us"),
    sa.Column("heard_bucket", Big),
)
"""Whether a hook is armed in a group of radio cells; without a row it is."""

effect = sa.Table(
    "effect",
    metadata,
    sa.Column("firing_id", sa.Text, primary_key=True),
    _text("kpi"),
    sa.Column("before_mean", sa.Double),
    sa.Column("after_mean", sa.Double),
    _text("verdict"),
    _whole("at_us"),
    sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"]),
)
"""What a KPI of its series did behind an applied firing."""

reversal = sa.Table(
    "reversal",
    metadata,
    sa.Column("firing_id", sa.Text, primary_key=True),
    sa.Column("actuator", sa.Text, primary_key=True),
    _text("cause"),
    _text("who"),
    _whole("begun_us"),
    sa.Column("kind", sa.Text),  # NULL: under way, or cut off
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("at_us", Big),
    sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"]),
)
"""Applied firings that were taken back, and what came of it at each actuator."""

approval = sa.Table(
    "approval",
    metadata,
    sa.Column("firing_id", sa.Text, primary_key=True),
    _text("verdict"),
    _text("who"),
    _whole("at_us"),
    sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"]),
)
"""What a person said to a firing in mode assist."""

dead_letter = sa.Table(
    "dead_letter",
    metadata,
    sa.Column("topic", sa.Text, primary_key=True),
    _key("partition"),
    _key("offset"),
    sa.Column("reason", sa.Text, primary_key=True),
    _text("detail"),
    _whole("ingest_time_us"),
    sa.Column("key", sa.LargeBinary),
    sa.Column("value", sa.LargeBinary),
    _whole("value_bytes"),  # length before the cap
    sa.Column("request_id", Big),  # of the replay that was asked for and has not entered yet
    _whole("at_us", default="0"),  # when it was stored
    sa.Index("ix_dead_letter_at_us", "at_us"),
)

dead_letter_range = sa.Table(
    "dead_letter_range",
    metadata,
    _key("lane_id"),
    _key("begins_offset"),  # of the stretch of the lane; other records may lie between the letters
    sa.Column("reason", sa.Text, primary_key=True),
    _whole("first_offset"),
    _whole("last_offset"),
    _whole("letters"),
    _whole("first_ingest_us"),
    _whole("last_ingest_us"),
    _whole("at_us"),  # when the newest of them was stored
    sa.Index("ix_dead_letter_range_at_us", "at_us"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
)
"""Dead letters beyond the rate up to which they are kept whole: where they are, and how many."""

gap = sa.Table(
    "gap",
    metadata,
    _key("lane_id"),
    _key("from_offset"),
    sa.Column("reason", sa.Text, primary_key=True),
    _whole("to_offset"),
    _whole("at_us", default="0"),  # when it was stored
    sa.Index("ix_gap_at_us", "at_us"),
    sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"]),
)

retrain_run = sa.Table(
    "retrain_run",
    metadata,
    sa.Column("run_id", Big, primary_key=True),
    _text("stream"),
    _text("predictor"),
    _whole("started_us"),
    sa.Column("ended_us", Big),
    _text("result"),
    sa.Column("model_id", Big),
    _text("detail"),
)

job_turn = sa.Table("job_turn", metadata, sa.Column("job", sa.Text, primary_key=True), _whole("due_us"))
"""When a job that is due on every instance was last taken up by one of them."""

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("audit_id", Big, primary_key=True),
    _whole("at_us"),
    _text("who"),
    _text("what"),
    _text("detail"),
)

SOURCE_LETTERS = "msn-"
"""By ``Source``: MODEL, SEASONAL, NAIVE, NONE."""

SOURCE_NAMES = ("model", "seasonal", "naive", "none")

FORECAST_POINT = {
    "sqlite": """\
CREATE VIEW forecast_point AS
SELECT stream, series, predictor, version, slot_time_us, lead_steps,
  slot_time_us + lead_steps * period_us AS target_time_us,
  strftime('%Y-%m-%dT%H:%M:%S', (slot_time_us + lead_steps * period_us) / 1000000, 'unixepoch')
    || printf('.%06dZ', (slot_time_us + lead_steps * period_us) % 1000000) AS target_time,
  json_extract(kpis, '$[' || kpi_number || ']') AS kpi,
  json_extract(levels, '$[' || level_number || ']') AS level,
  ticks / CAST('1e' || json_extract(decimals, '$[' || kpi_number || ']') AS REAL) AS value,
  CASE substr(sources, kpi_number + 1, 1)
    WHEN 'm' THEN 'model' WHEN 's' THEN 'seasonal' WHEN 'n' THEN 'naive' ELSE 'none' END AS source,
  quality
FROM (
  SELECT l.stream, s.key AS series, m.predictor, m.version, f.slot_time_us, f.sources, f.quality,
    l.period_us, l.kpis, l.levels, l.decimals, point.value AS ticks,
    point.key / (l.horizon_steps * json_array_length(l.levels)) AS kpi_number,
    point.key / json_array_length(l.levels) % l.horizon_steps + 1 AS lead_steps,
    point.key % json_array_length(l.levels) AS level_number
  FROM forecast AS f
  JOIN forecast_layout AS l ON l.layout_id = f.layout_id
  JOIN series AS s ON s.series_id = f.series_id
  JOIN model_version AS m ON m.model_id = f.model_id
  JOIN json_each(f.ticks) AS point
)""",
    "postgresql": """\
CREATE VIEW forecast_point AS
SELECT stream, series, predictor, version, slot_time_us, lead_steps,
  slot_time_us + lead_steps * period_us AS target_time_us,
  to_char(to_timestamp(0) AT TIME ZONE 'UTC' + (slot_time_us + lead_steps * period_us) * interval '1 microsecond',
    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS target_time,
  kpis::jsonb ->> kpi_number AS kpi,
  (levels::jsonb ->> level_number)::double precision AS level,
  ticks::double precision / power(10::double precision, (decimals::jsonb ->> kpi_number)::int) AS value,
  CASE substr(sources, kpi_number + 1, 1)
    WHEN 'm' THEN 'model' WHEN 's' THEN 'seasonal' WHEN 'n' THEN 'naive' ELSE 'none' END AS source,
  quality
FROM (
  SELECT l.stream, s.key AS series, m.predictor, m.version, f.slot_time_us, f.sources, f.quality,
    l.period_us, l.kpis, l.levels, l.decimals, point.value AS ticks,
    ((point.number - 1) / (l.horizon_steps * jsonb_array_length(l.levels::jsonb)))::int AS kpi_number,
    ((point.number - 1) / jsonb_array_length(l.levels::jsonb) % l.horizon_steps + 1)::int AS lead_steps,
    ((point.number - 1) % jsonb_array_length(l.levels::jsonb))::int AS level_number
  FROM forecast AS f
  JOIN forecast_layout AS l ON l.layout_id = f.layout_id
  JOIN series AS s ON s.series_id = f.series_id
  JOIN model_version AS m ON m.model_id = f.model_id
  CROSS JOIN LATERAL jsonb_array_elements_text(f.ticks::jsonb) WITH ORDINALITY AS point(value, number)
) AS points""",
}
"""By dialect: one row per target time, KPI and level, for SQL users and Grafana."""
