"""The RAN controller of the demo: an HTTP receiver of the webhook actuator's actions, for a simulated network.

``POST /actions`` sets, ``GET /objects/OBJECT/ATTRIBUTE`` reads back, ``POST /reverts`` takes back. An action counts
once by its id, holds until its ``effect_until_us`` and ends by itself: a netpredict that has died leaves no trace. What
is posted must be signed with the secret that both share (the webhook's ``hmac_file``), not long ago.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from netpredict.radio.tables import mcs_rows
from netpredict.traces.controlled import Orders

QUOTA, SLEEP, MCS, SERVING = "rRMPolicyRatio", "energySavingControl", "mcsIndex", "servingCell"
ASLEEP_OF = {"TO_BE_ENERGY_SAVING": True, "TO_BE_NOT_ENERGY_SAVING": False}
BODY_BYTES_MAX = 65_536
IDS_MAX = 100_000
SIGNED_WITHIN_S = 300


class Action(msgspec.Struct, frozen=True):
    """The part of a posted action that the controller heeds."""

    firing_id: str
    object_id: str
    attribute: str
    value: dict[str, Any]
    slot_time_us: int
    expires_at_us: int
    effect_until_us: int

    @property
    def name(self) -> str:
        """Of the radio cell or UE: the value of the first part of the object's name."""
        return self.object_id.partition(",")[0].partition("=")[2]


class Answer(NamedTuple):
    """An HTTP status and what the body says."""

    status: HTTPStatus
    body: Mapping[str, Any]


def _refused(status: HTTPStatus, why: str) -> Answer:
    return Answer(status, {"error": why})


@dataclass
class RanController:
    """What is in force, by object and attribute. ``now_us`` is the time of the network; any thread may call.

    ``answers`` counts by status. At most ``IDS_MAX`` ids are remembered: beyond that actions wait until some end.
    """

    radio_cells: Collection[str]
    capacity_cells: Collection[str]
    ues: Collection[str]
    secret: bytes
    now_us: Callable[[], int]
    answers: dict[int, int] = field(default_factory=dict, init=False)
    _in_force: dict[tuple[str, str], Action] = field(default_factory=dict, init=False)
    _seen: dict[str, int] = field(default_factory=dict, init=False)
    _handovers: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def apply(self, action: Action) -> Answer:
        """Set a value, once: the same id again changes nothing and is told so."""
        with self._lock:
            if action.firing_id in self._seen:
                return Answer(HTTPStatus.OK, {"applied": "before"})
            if self.now_us() >= action.expires_at_us:
                return _refused(HTTPStatus.GONE, "it has expired")
            if why := self._wrong(action):
                return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, why)
            place = (action.object_id, action.attribute)
            holder = self._in_force.get(place)
            if holder and holder.slot_time_us > action.slot_time_us:
                return _refused(HTTPStatus.CONFLICT, f"{holder.firing_id} is younger")
            if len(self._seen) >= IDS_MAX:
                return _refused(HTTPStatus.TOO_MANY_REQUESTS, f"{IDS_MAX} actions are in force")
            self._in_force[place] = action
            # the sender repeats an id until it expires; after that nobody asks for it again
            self._seen[action.firing_id] = max(action.expires_at_us, action.effect_until_us)
            if action.attribute == SERVING:
                self._handovers[action.name] = (action.value["source"], action.value["target"])
            return Answer(HTTPStatus.OK, {"applied": "now"})

    def _wrong(self, action: Action) -> str:
        """What is wrong with an action, "" when nothing is."""
        name, value = action.name, action.value
        if action.attribute == QUOTA:
            shares = [value.get(f"rRMPolicy{which}Ratio") for which in ("Dedicated", "Min", "Max")]
            fits = all(isinstance(share, int) and 0 <= share <= 100 for share in shares) and sorted(shares) == shares  # type: ignore[type-var]
            known = self.radio_cells
        elif action.attribute == SLEEP:
            fits, known = value.get(SLEEP) in ASLEEP_OF, self.capacity_cells
        elif action.attribute == MCS:
            table, index = value.get("mcs_table"), value.get("mcs_index")
            fits, known = table == 1 and index in range(len(mcs_rows(1))), self.ues
        elif action.attribute == SERVING:
            fits, known = {value.get("source"), value.get("target")} <= set(self.radio_cells), self.ues
        else:
            return f"no attribute {action.attribute!r} can be set here"
        if name not in known:
            return f"no object {action.object_id!r} is known here"
        return "" if fits else f"{value} is no value of {action.attribute}"

    def read_back(self, object_id: str, attribute: str) -> Answer:
        """What is in force."""
        with self._lock:
            self._end()
            action = self._in_force.get((object_id, attribute))
        if action is None:
            return _refused(HTTPStatus.NOT_FOUND, "nothing was set, or its time is over")
        return Answer(HTTPStatus.OK, {"value": action.value})

    def revert(self, action: Action) -> Answer:
        """End an action before its time; one that is over, or was replaced, is left as it is."""
        with self._lock:
            place = (action.object_id, action.attribute)
            holder = self._in_force.get(place)
            mine = holder is not None and holder.firing_id == action.firing_id
            if mine:
                del self._in_force[place]
            if mine and action.attribute == SERVING:
                self._handovers.pop(action.name, None)
        return Answer(HTTPStatus.OK, {"reverted": mine})

    def take_orders(self) -> Orders:
        """What the network has to heed from now on; a handover is given out once."""
        with self._lock:
            self._end()
            handovers, self._handovers = self._handovers, {}
            return Orders(
                {a.name: float(a.value["rRMPolicyMaxRatio"]) for a in self._of(QUOTA)},
                {a.name: ASLEEP_OF[a.value[SLEEP]] for a in self._of(SLEEP)},
                {a.name: a.value["mcs_index"] for a in self._of(MCS)},
                handovers,
            )

    def _of(self, attribute: str) -> list[Action]:
        return [action for (_, of), action in self._in_force.items() if of == attribute]

    def _end(self) -> None:
        """Let go of what has come to its end by the time of the network."""
        now_us = self.now_us()
        for place in [place for place, action in self._in_force.items() if action.effect_until_us <= now_us]:
            del self._in_force[place]
        for firing_id in [firing_id for firing_id, until_us in self._seen.items() if until_us <= now_us]:
            del self._seen[firing_id]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request, and count how; names of ``headers`` are in lower case."""
        if method == "POST" and not self._is_signed(headers, body):
            answer = _refused(HTTPStatus.UNAUTHORIZED, "it is not signed with our secret, or was so too long ago")
        else:
            answer = self._answered(method, path, body)
        with self._lock:
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
        return answer

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        stamp, key = headers.get("x-netpredict-timestamp", ""), headers.get("idempotency-key", "")
        signed = hmac.new(self.secret, f"{stamp}.{key}.".encode() + body, hashlib.sha256).hexdigest()
        told = headers.get("x-netpredict-signature", "")
        known = hmac.compare_digest(told.encode(), f"sha256={signed}".encode())
        return known and abs(time.time() - int(stamp)) <= SIGNED_WITHIN_S

    def _answered(self, method: str, path: str, body: bytes) -> Answer:
        match method, *path.split("/")[1:]:
            case "GET", "objects", object_id, attribute:
                return self.read_back(unquote(object_id), unquote(attribute))
            case "POST", ("actions" | "reverts") as verb:
                try:
                    action = msgspec.json.decode(body, type=Action)
                except msgspec.DecodeError as error:
                    return _refused(HTTPStatus.BAD_REQUEST, str(error))
                return self.apply(action) if verb == "actions" else self.revert(action)
        return _refused(HTTPStatus.NOT_FOUND, f"no {method} {path} here")


class ControllerServer:
    """Serves a controller on a port of the loopback interface that the system chooses; a context manager."""

    def __init__(self, controller: RanController) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(controller))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="ran-controller", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ControllerServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(controller: RanController) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet a reply: head and body apart would wait for each other's acknowledgement
        disable_nagle_algorithm = True
        timeout = 30

        def do_GET(self) -> None:
            self._reply()

        do_POST = do_GET  # noqa: N815

        def _reply(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > BODY_BYTES_MAX:
                self.close_connection = True
                answer = _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"use a body of at most {BODY_BYTES_MAX} bytes")
            else:
                answer = controller.answer(self.command, self.path, headers, self.rfile.read(int(length)))
            body = msgspec.json.encode(answer.body)
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the answers are counted."""

    return Handler
