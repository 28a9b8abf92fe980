"""The store as verbs write it: by this process, or by the daemon that holds it, without a difference for the verb."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from netpredict.errors import AlreadyRunning, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from netpredict.store.sql import SqlStore
    from netpredict.store.verbs import StoreVerbs

WAIT_S = 5.0
"""For a daemon that has the store but does not listen yet, or another verb that has it for a moment."""
RETRY_S = 0.1
ANSWER_S = 60.0
"""For the verb itself: it may wait for a commit in flight."""


@contextmanager
def opened_store(url: str) -> Iterator[StoreVerbs]:
    """The verbs of the store at a URL, through the daemon's control socket when a daemon holds it.

    AlreadyRunning when some process holds the store and takes no verbs; StoreUnavailable when the daemon gives no
    answer: it may have done it then.
    """
    from netpredict.store.sql import SqlStore

    store = SqlStore(url)
    until_s = time.monotonic() + WAIT_S
    while True:
        try:
            store.start()
        except AlreadyRunning:
            daemon = _listening(store)
            if daemon is not None:
                yield daemon
                return
            if time.monotonic() > until_s:
                raise
            time.sleep(RETRY_S)
        else:
            break
    try:
        yield store
    finally:
        store.close()


def _listening(store: SqlStore) -> StoreVerbs | None:
    """The daemon that holds this store, when it can be reached."""
    from netpredict.operate.control import ask, reachable
    from netpredict.store.verbs import caller

    path = store.control()
    if path is None:
        return None
    try:
        if not reachable(path):
            return None
    except PermissionError as error:
        raise StoreError(_foreign(path)) from error
    return caller(lambda question: ask(path, question, ANSWER_S))


def _foreign(path: Path) -> str:
    return f"the daemon runs as another user, and {path} is for that user only: run this with sudo -u THAT_USER"
