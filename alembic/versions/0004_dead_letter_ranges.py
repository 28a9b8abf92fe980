"""Beyond a rate dead letters are ranges and counts; letters and gaps know when they were stored, so that they age."""

import time

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dead_letter_range",
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("begins_offset", Big, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_offset", Big, nullable=False),
        sa.Column("last_offset", Big, nullable=False),
        sa.Column("letters", Big, nullable=False),
        sa.Column("first_ingest_us", Big, nullable=False),
        sa.Column("last_ingest_us", Big, nullable=False),
        sa.Column("at_us", Big, nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_dead_letter_range_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "begins_offset", "reason", name=op.f("pk_dead_letter_range")),
    )
    op.add_column("dead_letter", sa.Column("request_id", Big, nullable=True))
    for table in ("dead_letter", "gap"):
        op.add_column(table, sa.Column("at_us", Big, nullable=False, server_default="0"))
        op.execute(f"UPDATE {table} SET at_us = {time.time_ns() // 1000}")  # they age from now on
    for table in ("dead_letter", "dead_letter_range", "gap"):
        op.create_index(op.f(f"ix_{table}_at_us"), table, ["at_us"])


def downgrade() -> None:
    for table in ("dead_letter", "dead_letter_range", "gap"):
        op.drop_index(op.f(f"ix_{table}_at_us"), table)
    for table, names in (("gap", ["at_us"]), ("dead_letter", ["at_us", "request_id"])):
        with op.batch_alter_table(table) as altered:
            for name in names:
                altered.drop_column(name)
    op.drop_table("dead_letter_range")
