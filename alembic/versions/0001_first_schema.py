"""The first schema."""

import sqlalchemy as sa

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

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


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_id", Big, nullable=False),
        sa.Column("at_us", Big, nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_audit")),
    )
    op.create_table(
        "column_layout",
        sa.Column("layout_id", Big, autoincrement=False, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("decimals", sa.Text(), nullable=False),
        sa.Column("created_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("layout_id", name=op.f("pk_column_layout")),
    )
    op.create_table(
        "dead_letter",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", Big, autoincrement=False, nullable=False),
        sa.Column("offset", Big, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("ingest_time_us", Big, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("value_bytes", Big, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", "reason", name=op.f("pk_dead_letter")),
    )
    op.create_table(
        "forecast",
        sa.Column("slot_time_us", Big, autoincrement=False, nullable=False),
        sa.Column("series_id", Big, autoincrement=False, nullable=False),
        sa.Column("model_id", Big, autoincrement=False, nullable=False),
        sa.Column("layout_id", Big, nullable=False),
        sa.Column("sources", sa.Text(), nullable=False),
        sa.Column("quality", Big, nullable=False),
        sa.Column("ticks", sa.Text(), nullable=False),
        sa.Column("observed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("slot_time_us", "series_id", "model_id", name=op.f("pk_forecast")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "forecast_layout",
        sa.Column("layout_id", Big, autoincrement=False, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("kpis", sa.Text(), nullable=False),
        sa.Column("decimals", sa.Text(), nullable=False),
        sa.Column("levels", sa.Text(), nullable=False),
        sa.Column("horizon_steps", Big, nullable=False),
        sa.Column("period_us", Big, nullable=False),
        sa.Column("created_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("layout_id", name=op.f("pk_forecast_layout")),
    )
    op.create_table(
        "model_version",
        sa.Column("model_id", Big, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("predictor", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("created_us", Big, nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_model_version")),
        sa.UniqueConstraint("stream", "predictor", "version", name=op.f("uq_model_version_stream_predictor_version")),
    )
    op.create_table(
        "observation",
        sa.Column("slot_time_us", Big, autoincrement=False, nullable=False),
        sa.Column("series_id", Big, autoincrement=False, nullable=False),
        sa.Column("layout_id", Big, nullable=False),
        sa.Column("event_time_us", Big, nullable=False),
        sa.Column("flags", Big, nullable=False),
        sa.Column("ticks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("slot_time_us", "series_id", name=op.f("pk_observation")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "retrain_run",
        sa.Column("run_id", Big, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("predictor", sa.Text(), nullable=False),
        sa.Column("started_us", Big, nullable=False),
        sa.Column("ended_us", Big, nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("model_id", Big, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_retrain_run")),
    )
    op.create_table(
        "series",
        sa.Column("series_id", Big, autoincrement=False, nullable=False),
        sa.Column("lane_id", Big, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("first_slot", Big, nullable=False),
        sa.Column("scored", sa.Boolean(), nullable=False),
        sa.Column("retired_us", Big, nullable=True),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_series")),
    )
    op.create_index(
        "ix_series_live",
        "series",
        ["lane_id", "key"],
        unique=True,
        sqlite_where=sa.text("retired_us IS NULL"),
        postgresql_where=sa.text("retired_us IS NULL"),
    )
    op.create_table(
        "series_state",
        sa.Column("series_id", Big, autoincrement=False, nullable=False),
        sa.Column("slot", Big, nullable=False),
        sa.Column("layout_id", Big, nullable=False),
        sa.Column("checksum", Big, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_series_state")),
    )
    op.create_table(
        "state_layout",
        sa.Column("layout_id", Big, autoincrement=False, nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("layout_id", name=op.f("pk_state_layout")),
    )
    op.create_table(
        "topic_progress",
        sa.Column("lane_id", Big, nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", Big, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic_id", sa.Text(), nullable=False),
        sa.Column("next_offset", Big, nullable=True),
        sa.Column("epoch", Big, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("accepted", Big, server_default="0", nullable=False),
        sa.Column("duplicate", Big, server_default="0", nullable=False),
        sa.Column("late", Big, server_default="0", nullable=False),
        sa.Column("dead", Big, server_default="0", nullable=False),
        sa.Column("control", Big, server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("lane_id", name=op.f("pk_topic_progress")),
        sa.UniqueConstraint(
            "group_name", "topic", "partition", name=op.f("uq_topic_progress_group_name_topic_partition")
        ),
    )
    op.create_table(
        "control_journal",
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("effective_offset", Big, autoincrement=False, nullable=False),
        sa.Column("number", Big, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_control_journal_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "effective_offset", "number", name=op.f("pk_control_journal")),
    )
    op.create_table(
        "control_request",
        sa.Column("request_id", Big, nullable=False),
        sa.Column("lane_id", Big, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_control_request_lane_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_control_request")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "firing",
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("lane_id", Big, nullable=False),
        sa.Column("hook", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("slot_time_us", Big, nullable=False),
        sa.Column("expires_at_us", Big, nullable=False),
        sa.Column("effect_until_us", Big, nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_firing_lane_id")),
        sa.PrimaryKeyConstraint("firing_id", name=op.f("pk_firing")),
    )
    op.create_index("ix_firing_slot_time_us", "firing", ["slot_time_us"], unique=False)
    op.create_table(
        "gap",
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("from_offset", Big, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("to_offset", Big, nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_gap_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "from_offset", "reason", name=op.f("pk_gap")),
    )
    op.create_table(
        "publication",
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("next_offset", Big, autoincrement=False, nullable=False),
        sa.Column("from_time_us", Big, nullable=False),
        sa.Column("until_time_us", Big, nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_publication_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "next_offset", name=op.f("pk_publication")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "score",
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("bucket", Big, autoincrement=False, nullable=False),
        sa.Column("model_id", Big, autoincrement=False, nullable=False),
        sa.Column("source", Big, autoincrement=False, nullable=False),
        sa.Column("kpi", sa.Text(), nullable=False),
        sa.Column("lead_steps", Big, autoincrement=False, nullable=False),
        sa.Column("n", Big, nullable=False),
        sa.Column("abs_ticks", Big, nullable=False),
        sa.Column("square_ticks", sa.Text(), nullable=False),
        sa.Column("naive_abs_ticks", Big, nullable=False),
        sa.Column("below", sa.Text(), nullable=False),
        sa.Column("pinball", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_score_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "bucket", "model_id", "source", "kpi", "lead_steps", name=op.f("pk_score")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("number", Big, nullable=False),
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("actuator", sa.Text(), nullable=False),
        sa.Column("hook", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("attempts", Big, nullable=True),
        sa.Column("at_us", Big, nullable=True),
        sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"], name=op.f("fk_outbox_firing_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_outbox")),
        sa.UniqueConstraint("firing_id", "actuator", name=op.f("uq_outbox_firing_id_actuator")),
    )
    op.create_index(
        "ix_outbox_applied",
        "outbox",
        ["object_id", "attribute", "at_us"],
        unique=False,
        sqlite_where=sa.text("kind = 'applied'"),
        postgresql_where=sa.text("kind = 'applied'"),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["actuator", "number"],
        unique=False,
        sqlite_where=sa.text("kind IS NULL"),
        postgresql_where=sa.text("kind IS NULL"),
    )
    op.create_index(
        "ix_outbox_rate",
        "outbox",
        ["hook", "at_us"],
        unique=False,
        sqlite_where=sa.text("kind = 'applied'"),
        postgresql_where=sa.text("kind = 'applied'"),
    )
    op.execute(FORECAST_POINT[op.get_bind().dialect.name])


def downgrade() -> None:
    op.execute("DROP VIEW forecast_point")
    op.drop_index(
        "ix_outbox_rate",
        table_name="outbox",
        sqlite_where=sa.text("kind = 'applied'"),
        postgresql_where=sa.text("kind = 'applied'"),
    )
    op.drop_index(
        "ix_outbox_pending",
        table_name="outbox",
        sqlite_where=sa.text("kind IS NULL"),
        postgresql_where=sa.text("kind IS NULL"),
    )
    op.drop_index(
        "ix_outbox_applied",
        table_name="outbox",
        sqlite_where=sa.text("kind = 'applied'"),
        postgresql_where=sa.text("kind = 'applied'"),
    )
    op.drop_table("outbox")
    op.drop_table("score")
    op.drop_table("publication")
    op.drop_table("gap")
    op.drop_index("ix_firing_slot_time_us", table_name="firing")
    op.drop_table("firing")
    op.drop_table("control_request")
    op.drop_table("control_journal")
    op.drop_table("topic_progress")
    op.drop_table("state_layout")
    op.drop_table("series_state")
    op.drop_index(
        "ix_series_live",
        table_name="series",
        sqlite_where=sa.text("retired_us IS NULL"),
        postgresql_where=sa.text("retired_us IS NULL"),
    )
    op.drop_table("series")
    op.drop_table("retrain_run")
    op.drop_table("observation")
    op.drop_table("model_version")
    op.drop_table("forecast_layout")
    op.drop_table("forecast")
    op.drop_table("dead_letter")
    op.drop_table("column_layout")
    op.drop_table("audit")
