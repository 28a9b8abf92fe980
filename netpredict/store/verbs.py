"""What another process may ask the one that holds the store to write: a closed list of verbs, and how they travel.

``StoreVerbs`` is the list. A verb is a method of ``SqlStore`` that is declared there: its signature is the contract of
its callers, the type that its arguments are checked against on arrival, and the proxy that ``caller`` gives. One
message asks, one answers, each a line of JSON; the first carries the verb and its arguments by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, get_type_hints

import msgspec
import structlog

from netpredict import errors
from netpredict.errors import NetpredictError, StoreError
from netpredict.types import Firing, Outcome

LOG = structlog.get_logger(__name__)

MESSAGE_BYTES_MAX = 1_048_576
"""Of a question and of an answer, with the line's end."""


class StoreVerbs(Protocol):
    """What the command line writes. Values are what JSON holds, so that they arrive as they left."""

    def register_model(
        self,
        stream: str,
        predictor: str,
        version: str,
        plugin: str,
        folder: str,
        scores: Mapping[str, float],
        stage: str,
    ) -> int:
        """Id of a version of a predictor; the same natural key again changes nothing and gives the same id."""
        ...

    def move_model(self, model_id: int, stage: str, who: str, what: str, detail: Mapping[str, Any]) -> str | None:
        """Move a version to another stage, with its audit; gives the version that was active before."""
        ...

    def request(self, lane_id: int, kind: str, payload: Mapping[str, Any]) -> int:
        """Ask for something to enter a lane through its control journal; gives the id of the request."""
        ...

    def request_replay(
        self,
        who: str,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        to_offset: int | None = None,
        group: str | None = None,
        limit: int = 1000,
    ) -> dict[str, int]:
        """Ask for dead letters to enter again, each once; see ``SqlStore``."""
        ...

    def drop_dead_letters(
        self,
        who: str,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        to_offset: int | None = None,
    ) -> dict[str, int]:
        """Delete dead letters and ranges of them, and note who did; see ``SqlStore``."""
        ...

    def decide_action(self, firing_id: str, verdict: str, who: str) -> str:
        """Approve or reject a firing in mode assist, once; see ``SqlStore``."""
        ...

    def fire(self, firings: Sequence[Firing], actuators: Sequence[str], publish: bool) -> list[str]:
        """Store what a policy decided; gives the ids of what was not there already; see ``SqlStore``."""
        ...

    def begin_reversal(self, firing_id: str, cause: str, who: str) -> list[tuple[Firing, str]]:
        """Note that a firing is being taken back; gives what is to be reverted at which actuator; see ``SqlStore``."""
        ...

    def end_reversal(self, firing_id: str, actuator: str, outcome: Outcome) -> None:
        """Store what came of taking a firing back at one actuator."""
        ...

    def record_audit(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        """Note that a person changed something."""
        ...


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verb: str
    arguments: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``error`` is the name of a class in ``netpredict.errors``; empty when all went well."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    text: str = ""


@cache
def verbs() -> Mapping[str, tuple[type[msgspec.Struct], Any]]:
    """Of each verb: the type of its arguments, and of what it gives."""
    return {
        name: _signature(name, function)
        for name, function in vars(StoreVerbs).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


def _signature(name: str, function: Callable[..., Any]) -> tuple[type[msgspec.Struct], Any]:
    hints = get_type_hints(function)
    fields: list[Any] = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        given = () if parameter.default is inspect.Parameter.empty else (parameter.default,)
        fields.append((parameter.name, hints[parameter.name], *given))
    return msgspec.defstruct(name, fields, frozen=True, kw_only=True, forbid_unknown_fields=True), hints["return"]


def perform(store: StoreVerbs, question: bytes) -> bytes:
    """Do what a question asks and give the answer; whatever is wrong with it becomes an answer too."""
    try:
        answer = _Answer(result=msgspec.Raw(_performed(store, question)))
    except NetpredictError as error:
        answer = _Answer(error=type(error).__name__, text=str(error))
    except Exception as error:
        LOG.exception("verb_failed")
        answer = _Answer(error=StoreError.__name__, text=f"the daemon failed: {type(error).__name__}; see its log")
    return msgspec.json.encode(answer) + b"\n"


def _performed(store: StoreVerbs, question: bytes) -> bytes:
    try:
        asked = msgspec.json.decode(question, type=_Question)
        if asked.verb not in verbs():
            raise StoreError(f"the daemon knows no verb {asked.verb!r}: is it of another release? restart it")
        arguments = msgspec.json.decode(asked.arguments, type=verbs()[asked.verb][0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"the daemon does not understand the question: {error}") from error
    LOG.info("verb", verb=asked.verb)
    given = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
    return msgspec.json.encode(getattr(store, asked.verb)(**given))


def caller(ask: Callable[[bytes], bytes]) -> StoreVerbs:
    """The verbs of a store that is elsewhere; ``ask`` carries a question there and brings the answer.

    A call raises the errors of the store itself, and StoreError when the answer is none.
    """
    members = {name: _remote(name, ask, *signature) for name, signature in verbs().items()}
    built: StoreVerbs = type("RemoteStore", (), members)()
    return built


def _remote(
    name: str, ask: Callable[[bytes], bytes], arguments: type[msgspec.Struct], gives: Any
) -> Callable[..., Any]:
    signature = inspect.signature(getattr(StoreVerbs, name))

    def call(*given: Any, **named: Any) -> Any:
        by_name = signature.bind(*given, **named).arguments
        by_name.pop("self")
        question = _Question(name, msgspec.Raw(msgspec.json.encode(arguments(**by_name))))
        line = msgspec.json.encode(question) + b"\n"
        if len(line) > MESSAGE_BYTES_MAX:
            raise StoreError(f"{name}: {len(line)} bytes are more than a daemon takes, {MESSAGE_BYTES_MAX}")
        return _opened(ask(line), gives)

    return call


def _opened(line: bytes, gives: Any) -> Any:
    try:
        answer = msgspec.json.decode(line, type=_Answer)
        if not answer.error:
            return msgspec.json.decode(answer.result, type=gives)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"the daemon's answer is not understood: {error}") from error
    kind = getattr(errors, answer.error, StoreError)
    known = isinstance(kind, type) and issubclass(kind, NetpredictError)
    raise (kind if known else StoreError)(answer.text)
