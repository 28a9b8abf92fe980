"""What a forecast has to beat stands beside it; what is asked of a lane from outside waits for its next record."""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("forecast", sa.Column("seasonal", sa.Text(), nullable=True))
    for name in ("flat", "truth_abs_ticks", "seasonal_abs_ticks"):
        op.add_column("score", sa.Column(name, Big, nullable=False, server_default="0"))
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


def downgrade() -> None:
    op.drop_table("control_request")
    with op.batch_alter_table("score") as score:
        for name in ("seasonal_abs_ticks", "truth_abs_ticks", "flat"):
            score.drop_column(name)
    with op.batch_alter_table("forecast") as forecast:
        forecast.drop_column("seasonal")
