"""Actions that only keep a value in force are told from those that change one, or may have."""

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REPEATS, CHANGED, APPLIED = sa.text("refreshes <> ''"), sa.text("changed = 1"), sa.text("kind = 'applied'")


def upgrade() -> None:
    op.add_column("outbox", sa.Column("refreshes", sa.Text(), nullable=False, server_default=""))
    op.add_column("outbox", sa.Column("changed", Big, nullable=False, server_default="0"))
    op.execute("UPDATE outbox SET changed = 1 WHERE kind = 'applied'")
    op.drop_index(op.f("ix_outbox_rate"), "outbox")
    _index("ix_outbox_refreshes", ["refreshes"], REPEATS)
    _index("ix_outbox_rate", ["hook", "at_us"], CHANGED)


def downgrade() -> None:
    for name in ("ix_outbox_rate", "ix_outbox_refreshes"):
        op.drop_index(op.f(name), "outbox")
    for name in ("changed", "refreshes"):
        op.drop_column("outbox", name)
    _index("ix_outbox_rate", ["hook", "at_us"], APPLIED)


def _index(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(op.f(name), "outbox", columns, sqlite_where=where, postgresql_where=where)
