"""Actions: what expires is found by itself, who holds an attribute, what people approved, what the guards said."""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WAITS, READY = sa.text("kind IS NULL"), sa.text("kind IS NULL AND held = 0")
OUTBOX = (
    ("expires_at_us", Big, "0"),
    ("held", Big, "0"),
    ("radio_cell_id", sa.Text(), ""),
    ("checks", sa.Text(), None),
    ("reply", sa.Text(), None),
)
FIRING = ("series", "group_name")


def upgrade() -> None:
    for name in FIRING:
        op.add_column("firing", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    for name, kind, first in OUTBOX:
        op.add_column("outbox", sa.Column(name, kind, nullable=first is None, server_default=first))
    op.execute(
        "UPDATE outbox SET expires_at_us ="
        " (SELECT f.expires_at_us FROM firing AS f WHERE f.firing_id = outbox.firing_id) WHERE kind IS NULL"
    )
    op.drop_index(op.f("ix_outbox_pending"), "outbox")
    _index("ix_outbox_pending", ["actuator", "number"], READY)
    _index("ix_outbox_expiry", ["expires_at_us"], WAITS)
    op.create_table(
        "lease",
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("hook", sa.Text(), nullable=False),
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("priority", Big, nullable=False),
        sa.Column("until_us", Big, nullable=False),
        sa.Column("taken_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("object_id", "attribute", name=op.f("pk_lease")),
    )
    op.create_table(
        "breaker",
        sa.Column("hook", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("n", Big, nullable=False),
        sa.Column("skill", sa.Double(), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("since_us", Big, nullable=False),
        sa.Column("at_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("hook", "group_name", name=op.f("pk_breaker")),
    )
    op.create_table(
        "effect",
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("kpi", sa.Text(), nullable=False),
        sa.Column("before_mean", sa.Double(), nullable=True),
        sa.Column("after_mean", sa.Double(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("at_us", Big, nullable=False),
        sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"], name=op.f("fk_effect_firing_id")),
        sa.PrimaryKeyConstraint("firing_id", name=op.f("pk_effect")),
    )
    op.create_table(
        "reversal",
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("actuator", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("begun_us", Big, nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at_us", Big, nullable=True),
        sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"], name=op.f("fk_reversal_firing_id")),
        sa.PrimaryKeyConstraint("firing_id", "actuator", name=op.f("pk_reversal")),
    )
    op.create_table(
        "approval",
        sa.Column("firing_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at_us", Big, nullable=False),
        sa.ForeignKeyConstraint(["firing_id"], ["firing.firing_id"], name=op.f("fk_approval_firing_id")),
        sa.PrimaryKeyConstraint("firing_id", name=op.f("pk_approval")),
    )


def downgrade() -> None:
    op.drop_table("approval")
    op.drop_table("reversal")
    op.drop_table("effect")
    op.drop_table("breaker")
    op.drop_table("lease")
    for name in ("ix_outbox_expiry", "ix_outbox_pending"):
        op.drop_index(op.f(name), "outbox")
    op.execute("UPDATE outbox SET kind = 'skipped', reason = 'held', at_us = 0 WHERE kind IS NULL AND held = 1")
    # not in a batch: that makes the table anew, and others refer to the rows of "firing"
    for name, _, _ in reversed(OUTBOX):
        op.drop_column("outbox", name)
    for name in reversed(FIRING):
        op.drop_column("firing", name)
    _index("ix_outbox_pending", ["actuator", "number"], WAITS)


def _index(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(op.f(name), "outbox", columns, sqlite_where=where, postgresql_where=where)
