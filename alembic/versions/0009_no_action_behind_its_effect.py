"""What waits expires when its effect would be over: older releases let a long valid_for_s outlast effect_s."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LATER = "expires_at_us > effect_until_us"


def upgrade() -> None:
    waiting = "SELECT firing_id FROM outbox WHERE kind IS NULL"
    op.execute(
        "UPDATE outbox SET expires_at_us ="
        " (SELECT f.effect_until_us FROM firing AS f WHERE f.firing_id = outbox.firing_id)"
        f" WHERE kind IS NULL AND firing_id IN (SELECT firing_id FROM firing WHERE {LATER})"
    )
    op.execute(f"UPDATE firing SET expires_at_us = effect_until_us WHERE {LATER} AND firing_id IN ({waiting})")


def downgrade() -> None:
    """Nothing to undo: an older release applies what waits as it is."""
