"""Runs the migrations on the connection that ``netpredict.store.migrate`` hands over, inside its transaction."""

from alembic import context
from netpredict.errors import StoreError
from netpredict.store.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise StoreError("migrations run through netpredict: use `netpredict db upgrade`")
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
