"""CloudEvents 1.0 in Kafka's binary mode: what stands in the headers around the JSON of ``ingest.messages``.

Source and id name an event: whoever has seen both has seen the event. ``netpredict.action.v1`` tells what a hook
decided, in every mode and before any guard; ``apply`` and ``revert`` are orders, which an actuator gives.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import quote

import msgspec

from netpredict.ingest.messages import ACTION_SCHEMA, Action
from netpredict.types import Firing

Headers: TypeAlias = list[tuple[str, bytes]]

FORECAST_TYPE = "netpredict.forecast.v1"
ACTION_TYPE = "netpredict.action.v1"
APPLY_TYPE = "netpredict.action.apply.v1"
REVERT_TYPE = "netpredict.action.revert.v1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def origin(event_type: str, group: str, *path: str) -> Headers:
    """What all events of one type from one place have in common; ``group`` is Kafka's consumer group."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", event_type.encode()),
        ("ce_source", "/".join(["/netpredict", quote(group, safe=""), *path]).encode()),
        ("content-type", b"application/json"),
    ]


def identity(event_id: str, time_us: int) -> Headers:
    """What is an event's own: its id and the time it speaks of, µs since the epoch, UTC."""
    return [("ce_id", event_id.encode()), ("ce_time", _stamp(time_us))]


def action_json(firing: Firing) -> bytes:
    """A firing as ``netpredict.action/1``."""
    message = Action(
        ACTION_SCHEMA,
        firing.firing_id,
        firing.hook,
        firing.stream,
        firing.object_id,
        firing.attribute,
        dict(firing.value),
        dict(firing.why),
        firing.mode.value,
        firing.slot_time_us,
        firing.expires_at_us,
        firing.effect_until_us,
    )
    return msgspec.json.encode(message)


def record_key(key: str) -> bytes:
    """The key of a record about a series or an object: its coarsest field, so what concerns one stays in order."""
    return key.partition("|")[0].encode()


@lru_cache(maxsize=1024)
def _stamp(time_us: int) -> bytes:
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z").encode()
