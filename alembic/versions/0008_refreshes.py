"""Actions that only keep a value in force are told from those that change one."""

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REPEATS = sa.text("refreshes <> ''")


def upgrade() -> None:
    op.add_column("outbox", sa.Column("refreshes", sa.Text(), nullable=False, server_default=""))
    op.create_index(
        op.f("ix_outbox_refreshes"), "outbox", ["refreshes"], sqlite_where=REPEATS, postgresql_where=REPEATS
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_refreshes"), "outbox")
    op.drop_column("outbox", "refreshes")
