"""States of a sample of series, and what calibrated and served when, so that stored forecasts can be replayed."""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "state_anchor",
        sa.Column("slot_time_us", Big, autoincrement=False, nullable=False),
        sa.Column("series_id", Big, autoincrement=False, nullable=False),
        sa.Column("layout_id", Big, nullable=False),
        sa.Column("checksum", Big, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("slot_time_us", "series_id", name=op.f("pk_state_anchor")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bucket_mark",
        sa.Column("begins_us", Big, autoincrement=False, nullable=False),
        sa.Column("lane_id", Big, autoincrement=False, nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["topic_progress.lane_id"], name=op.f("fk_bucket_mark_lane_id")),
        sa.PrimaryKeyConstraint("begins_us", "lane_id", name=op.f("pk_bucket_mark")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("bucket_mark")
    op.drop_table("state_anchor")
