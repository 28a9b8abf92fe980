"""Records as they come from broken senders, hostile ones and bad cables: sound messages with something done to them.

Everything is drawn from the ``random.Random`` that is given, so that a seed repeats a run.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

Headers = list[tuple[str, bytes]]


class Mutant(NamedTuple):
    """A record and what was done to it."""

    kind: str
    value: bytes | None
    key: bytes | None
    timestamp: int
    headers: Headers


Message = dict[str, Any]

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", "1e400", "-0.0", "5e-324", "9223372036854775808", "1e19"]
NUMBERS += ["-9223372036854775809", "0", "-1", "1.5", "true", "null", '"7"', "[]", "{}", "1" * 400]
WEIRD: list[Any] = [None, True, -1, 0, 2**63, -(2**63), 1e308, "", "x", [], {}, [[]], [None], {"a": {}}, 0.1, "\x00"]
IDENTITIES = [
    "bad\n1",
    "bad\x00",
    "\x1b]0;bad\x07",
    "'; DROP TABLE series; --bad",
    "../../bad",
    "$(touch bad)",
    "b" * 10_240,
]
IDENTITIES += ["bad|bad", "", "\u202ebad", "bad\u200b", "b\u0430d", "bad " * 60, "ＢＡＤ", "bad\ufeff", " ", "%s%n{0}"]
VERSIONS = [
    "netpredict.traffic/2",
    "netpredict.rsrp/1",
    "netpredict.traffic/1.99999",
    "x",
    "",
    "netpredict.grid/1",
    "a" * 999,
]
GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"\xff\xfe\x00",
    b"\x00" * 64,
    b"<xml/>",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"{" * 999,
]


def flip(rng: random.Random, raw: bytes) -> bytes:
    """Some bits of some bytes."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(rng: random.Random, raw: bytes) -> bytes:
    """Only a beginning or an end."""
    at = rng.randrange(len(raw) + 1)
    return raw[:at] if rng.random() < 0.7 else raw[at:]


def splice(rng: random.Random, raw: bytes) -> bytes:
    """A piece twice, gone, or somewhere else."""
    start, end = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
    at = rng.randrange(len(raw) + 1)
    return rng.choice((raw[:end] + raw[start:], raw[:start] + raw[end:], raw[:at] + raw[start:end] + raw[at:]))


def insert(rng: random.Random, raw: bytes) -> bytes:
    """Bytes that do not belong there."""
    at = rng.randrange(len(raw) + 1)
    return (
        raw[:at]
        + rng.choice((b"\x00", b"\xff", b'"', b"}", b",", b"\\u", b"\xed\xa0\x80", rng.randbytes(9)))
        + raw[at:]
    )


def number(rng: random.Random, raw: bytes) -> bytes:
    """A number becomes one that is none, or none of ours."""
    text = raw.decode()
    places = [place for place in range(1, len(text)) if text[place].isdigit() and text[place - 1] in ":[,"]
    if not places:
        return raw
    start = end = rng.choice(places)
    while end < len(text) and text[end] in "0123456789.eE+-":
        end += 1
    return (text[:start] + rng.choice(NUMBERS) + text[end:]).encode()


OF_BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flipped": flip,
    "cut": cut,
    "spliced": splice,
    "inserted": insert,
    "number": number,
    "garbage": lambda rng, raw: rng.choice(GARBAGE),
    "random": lambda rng, raw: rng.randbytes(rng.randrange(300)),
    "framed": lambda rng, raw: b"\x00" + rng.randbytes(4) + raw,
    "zipped": lambda rng, raw: gzip.compress(raw, mtime=0),
    "zipped_badly": lambda rng, raw: flip(rng, gzip.compress(raw, mtime=0)),
    "bomb": lambda rng, raw: _BOMB,
    "huge": lambda rng, raw: raw[:-1] + b',"pad":"' + b"x" * rng.randrange(60_000, 90_000) + b'"}',
    "nested": lambda rng, raw: b'{"a":' * (depth := rng.randrange(50, 4000)) + raw + b"}" * depth,
    "many_keys": lambda rng, raw: raw[:-1] + b"".join(b',"k%d":%d' % (n, n) for n in range(rng.randrange(3000))) + b"}",
}
_BOMB = gzip.compress(b" " * 20_000_000, mtime=0)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, part in items for place in _places(part, (*path, key)))]


def _parent(message: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        message = message[key]
    return message


def gone(rng: random.Random, message: Message) -> None:
    """A field that is not there."""
    path = rng.choice(_places(message))
    del _parent(message, path)[path[-1]]


def weird(rng: random.Random, message: Message) -> None:
    """A field of another type."""
    path = rng.choice(_places(message))
    _parent(message, path)[path[-1]] = copy.deepcopy(rng.choice(WEIRD))


def swapped(rng: random.Random, message: Message) -> None:
    """Two fields that have each other's values."""
    one, two = (rng.choice(_places(message)) for _ in range(2))
    if one[: len(two)] != two and two[: len(one)] != one:
        parents = _parent(message, one), _parent(message, two)
        first, second = parents[0][one[-1]], parents[1][two[-1]]
        parents[0][one[-1]], parents[1][two[-1]] = second, first


def identity(rng: random.Random, message: Message) -> None:
    """Names that mean harm, wherever a text stands."""
    texts = [path for path in _places(message) if isinstance(_parent(message, path)[path[-1]], str)]
    if texts:
        path = rng.choice(texts)
        _parent(message, path)[path[-1]] = rng.choice(IDENTITIES)


def version(rng: random.Random, message: Message) -> None:
    """Another schema."""
    message["schema"] = rng.choice(VERSIONS)


def stamped(rng: random.Random, message: Message) -> None:
    """Times that are none of ours: other units, other years, other zones."""
    whole = [
        p
        for p in _places(message)
        if isinstance(_parent(message, p)[p[-1]], int) and _parent(message, p)[p[-1]] > 10**9
    ]
    if whole:
        path = rng.choice(whole)
        at = _parent(message, path)
        now = at[path[-1]]
        day = 86_400_000_000
        choices = [now // 1000, now // 10**6, now * 1000, -now, 0, now + 40 * day, now - 40 * day, 2**63 - 1, 2**62]
        at[path[-1]] = rng.choice([*choices, now - 3_600_000_000, now + 7_200_000_000, now // 2, str(now), now + 0.5])


def value_of(rng: random.Random, message: Message) -> None:
    """Values beyond what the radio can do."""
    found = [p for p in _places(message) if isinstance(_parent(message, p)[p[-1]], float)]
    if found:
        path = rng.choice(found)
        _parent(message, path)[path[-1]] = rng.choice([-1.0, 1e9, -1e9, 1e38, 1e-40, 101.0, 0.0, 1e300, -273.15])


OF_MESSAGES: dict[str, Callable[[random.Random, Message], None]] = {
    "field_gone": gone,
    "field_weird": weird,
    "fields_swapped": swapped,
    "identity": identity,
    "version": version,
    "stamp": stamped,
    "value": value_of,
}

KEYS: list[bytes | None] = [None, b"", b"\xff\xfe", b"good-0", b"k" * 70_000, b"\x00"]
HEADERS: list[Headers] = [
    [("gzip", b"1")],
    [("x", b"\xff" * 5000)],
    [("\udcff", b"")],
    [("h" * 5000, b"v"), ("gzip", b"true")],
    [("", b"")] * 50,
]
STAMPS = [-1, 0, 1, 2**31, -(2**62)]
"""In ms. Only senders that set the ingest time to a far future are missing: brokers refuse those."""


def mutant(rng: random.Random, message: Message, key: bytes, timestamp: int, *, stamps: bool = True) -> Mutant:
    """Something done to a sound message, sometimes twice, sometimes to what stands around it."""
    kinds: list[str] = []
    headers: Headers = []
    new_key: bytes | None = key
    made = copy.deepcopy(message)
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2))):
            kinds.append(name := rng.choice([*OF_MESSAGES]))
            if made:
                OF_MESSAGES[name](rng, made)
    value: bytes | None = json.dumps(made, separators=(",", ":"), ensure_ascii=rng.random() < 0.5).encode(
        "utf-8", "replace"
    )
    if not kinds or rng.random() < 0.1:
        kinds.append(name := rng.choice([*OF_BYTES, "tombstone", "as_it_was"]))
        value = None if name == "tombstone" else OF_BYTES.get(name, lambda _, raw: raw)(rng, value or b"")
    around = rng.random()
    if around < 0.05:
        kinds.append("key")
        new_key = rng.choice(KEYS)
    elif around < 0.1:
        kinds.append("headers")
        headers = rng.choice(HEADERS)
    elif around < 0.13 and stamps:
        kinds.append("ingest_time")
        timestamp = rng.choice(STAMPS)
    return Mutant(kinds[0], value, new_key, timestamp, headers)
