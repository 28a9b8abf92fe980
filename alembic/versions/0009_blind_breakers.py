"""Breakers know since when they have heard nothing; what waits expires when its effect would be over.

Older releases let a long valid_for_s outlast effect_s.
"""

import sqlalchemy as sa

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LATER = "expires_at_us > effect_until_us"


def upgrade() -> None:
    op.add_column("breaker", sa.Column("heard_bucket", Big))
    waiting = "SELECT firing_id FROM outbox WHERE kind IS NULL"
    op.execute(
        "UPDATE outbox SET expires_at_us ="
        " (SELECT f.effect_until_us FROM firing AS f WHERE f.firing_id = outbox.firing_id)"
        f" WHERE kind IS NULL AND firing_id IN (SELECT firing_id FROM firing WHERE {LATER})"
    )
    op.execute(f"UPDATE firing SET expires_at_us = effect_until_us WHERE {LATER} AND firing_id IN ({waiting})")


def downgrade() -> None:
    """The column alone: an older release applies what waits as it is."""
    op.drop_column("breaker", "heard_bucket")
