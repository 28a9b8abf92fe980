"""What a forecast has to beat stands beside it: seasonal naive, the size of the truth, pairs without spread."""

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


def downgrade() -> None:
    with op.batch_alter_table("score") as score:
        for name in ("seasonal_abs_ticks", "truth_abs_ticks", "flat"):
            score.drop_column(name)
    with op.batch_alter_table("forecast") as forecast:
        forecast.drop_column("seasonal")
