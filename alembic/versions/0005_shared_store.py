"""Several instances on one store: who is applying an action, and which instance runs a job that is due on all."""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("outbox", sa.Column("claimed_by", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("claimed_until_us", Big, nullable=True))
    op.create_table(
        "job_turn",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("due_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_job_turn")),
    )


def downgrade() -> None:
    op.drop_table("job_turn")
    with op.batch_alter_table("outbox") as outbox:
        for name in ("claimed_until_us", "claimed_by"):
            outbox.drop_column(name)
