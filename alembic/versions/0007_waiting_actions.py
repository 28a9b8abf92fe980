"""What waits for an attribute is found by itself: an older action gives way to a younger one, and both are counted."""

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waits = sa.text("kind IS NULL")
    columns = ["hook", "object_id", "attribute"]
    op.create_index(op.f("ix_outbox_waiting"), "outbox", columns, sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_waiting"), "outbox")
