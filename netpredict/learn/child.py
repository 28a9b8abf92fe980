"""One training in a child process, so that neither its memory nor its crash is the daemon's.

``python -m netpredict.learn.child FOLDER`` reads ``job.json`` and ``dataset.npz``, prints progress as JSON lines, and
leaves ``artefact/`` and ``result.json``. The parent needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from netpredict import errors
from netpredict.errors import ArtefactError, DataError, NetpredictError
from netpredict.learn.dataset import read_arrays, write_arrays
from netpredict.types import FeatureSpec, Hindsight, OutputSpec, TrainingSet

JOB, DATASET, RESULT, ARTEFACT, LOG = "job.json", "dataset.npz", "result.json", "artefact", "stderr.log"
_LINE_MAX_BYTES = 64 << 10
_LOG_TAIL_BYTES = 2000
_TERMINATE_S = 2.0
_WAIT_S = 0.25
_PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class TrainingFailed(NetpredictError):
    """The child process died, or left no result that can be read."""


class TrainingTimeout(NetpredictError):
    """The training took longer than it was allowed; its process group was killed."""

    retriable = True


class TrainingTooLarge(NetpredictError):
    """The training used more memory than it was allowed; its process group was killed."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``job.json``: what to train, beside the arrays in ``dataset.npz``."""

    predictor: str
    options: dict[str, Any]
    features: FeatureSpec
    output: OutputSpec
    validation_from: int
    now_us: int
    hindsight: Hindsight | None = None
    incumbent: str = ""  # folder of the artefact to compare with, on the same held-out slice
    incumbent_version: str = ""


class Step(msgspec.Struct, frozen=True):
    """One line of progress; a loss that is not a number is null."""

    done: int
    total: int
    loss: float | None
    validation_loss: float | None
    left_s: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """``result.json``: the version in ``artefact/``, or the class and text of the error.

    ``held_out`` and ``incumbent_held_out`` are of ``evaluate.held_out``, on the same slice. ``incumbent_error`` tells
    why there was nothing to compare with.
    """

    version: str = ""
    train_epochs: int = 0
    training_s: float = 0.0
    scores: dict[str, float] = {}
    held_out: dict[str, float] = {}
    incumbent_held_out: dict[str, float] = {}
    incumbent_error: str = ""
    error: str = ""
    detail: str = ""


def write_job(
    folder: Path,
    dataset: TrainingSet,
    predictor: str,
    options: Mapping[str, Any],
    now_us: int,
    incumbent: tuple[str, str] = ("", ""),
) -> Path:
    """A folder that ``run_child`` can work on. ``incumbent``: folder and version of what is to be compared with."""
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        predictor=predictor,
        options=dict(options),
        features=dataset.features,
        output=dataset.output,
        validation_from=dataset.validation_from,
        hindsight=dataset.hindsight,
        now_us=now_us,
        incumbent=incumbent[0],
        incumbent_version=incumbent[1],
    )
    write_arrays(folder / DATASET, dataset)
    (folder / JOB).write_bytes(msgspec.json.encode(job))
    return folder


def run_child(
    folder: Path,
    *,
    timeout_s: float,
    nice: int = 10,
    threads: int = 1,
    memory_max_bytes: int | None = None,
    on_progress: Callable[[Step], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Result:
    """Train in a child and wait. Raises the child's own error, TrainingTimeout, or TrainingFailed when it just died.

    TrainingTooLarge when it uses more than ``memory_max_bytes`` of resident memory, looked at several times a second:
    a limit on address space (RLIMIT_AS) would hit TensorFlow, which reserves many GiB that it never touches.
    What ``on_progress`` raises cancels the training, and so does ``on_wait``, called several times a second. The
    process group is gone when this returns, however it returns.
    """
    (folder / RESULT).unlink(missing_ok=True)
    command = [sys.executable, "-m", "netpredict.learn.child", str(folder), str(nice)]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(threads),
            start_new_session=True,
        )
    deadline_s = time.monotonic() + timeout_s
    try:
        for line in _lines(process, deadline_s, partial(_look_after, process.pid, memory_max_bytes, on_wait)):
            if on_progress is not None and (step := _step_of(line)) is not None:
                on_progress(step)
        process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise TrainingTimeout(f"training in {folder} took longer than {timeout_s:g} s and was stopped") from error
    finally:
        _end(process)
    return _result(folder, process.returncode)


def _look_after(pid: int, memory_max_bytes: int | None, on_wait: Callable[[], None] | None) -> None:
    if on_wait is not None:
        on_wait()
    if memory_max_bytes is not None and (used := _resident_bytes(pid)) > memory_max_bytes:
        raise TrainingTooLarge(
            f"the training used {used / 2**20:.0f} MiB of memory, learn.memory_max_bytes allows"
            f" {memory_max_bytes / 2**20:.0f} MiB; lower learn.series_max or history_steps, or the predictor's units"
        )


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone, or where there is no /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _environment(threads: int) -> dict[str, str]:
    """Little of ours (no secrets), and the number of threads by every name that the libraries listen to."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    flags = {name: value for name, value in os.environ.items() if name.startswith("TF_")}
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**passed, **flags, **dict.fromkeys(names, str(threads)), "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""}


def _lines(process: subprocess.Popen[bytes], deadline_s: float, on_wait: Callable[[], None]) -> Iterator[bytes]:
    """Lines of the child's stdout until it closes it; TimeoutError at the deadline."""
    assert process.stdout is not None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            on_wait()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if not selector.select(min(left_s, _WAIT_S)):
                continue
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            pending = pending[-_LINE_MAX_BYTES:]
            yield from lines


def _step_of(line: bytes) -> Step | None:
    """Whatever else a library prints on stdout is not progress."""
    try:
        return msgspec.json.decode(line, type=Step)
    except msgspec.MsgspecError:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group, then insist; the group outlives its leader when that left children behind."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TERMINATE_S)
    _signal(process, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _result(folder: Path, code: int) -> Result:
    try:
        result = msgspec.json.decode((folder / RESULT).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError) as error:
        tail = (folder / LOG).read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
        raise TrainingFailed(f"the training in {folder} ended with code {code} and no result: {tail}") from error
    if result.error:
        raise _error_of(result)
    if not result.version:
        raise TrainingFailed(f"the training in {folder} names no version")
    return result


def _error_of(result: Result) -> NetpredictError:
    """The class of the tree that the child named, else TrainingFailed."""
    known = getattr(errors, result.error, None)
    if isinstance(known, type) and issubclass(known, NetpredictError):
        return known(result.detail)
    return TrainingFailed(f"{result.error}: {result.detail}")


def work(folder: Path) -> Result:
    """The child's part, up to its result: train, then both versions on the held-out slice."""
    from netpredict.learn.evaluate import held_out
    from netpredict.learn.hindsight import labelled
    from netpredict.learn.shelf import predictor_of
    from netpredict.learn.train import train

    try:
        job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{folder / JOB} is not a job: {error}") from error
    arrays = read_arrays(folder / DATASET, job.features, job.output, job.validation_from)
    dataset = replace(arrays, hindsight=job.hindsight)
    artefact, report = train(
        dataset, job.predictor, job.options, folder / ARTEFACT, now_us=job.now_us, progress=_print_progress
    )
    predictor = predictor_of(artefact)
    dataset = labelled(dataset, predictor)
    theirs, why_not = _incumbent_held_out(job, dataset)
    return Result(
        version=artefact.version,
        train_epochs=report.train_epochs,
        training_s=report.training_s,
        scores=dict(report.scores),
        held_out=held_out(predictor, dataset),
        incumbent_held_out=theirs,
        incumbent_error=why_not,
    )


def _incumbent_held_out(job: Job, dataset: TrainingSet) -> tuple[dict[str, float], str]:
    from netpredict.learn.evaluate import held_out
    from netpredict.learn.registry import load_artefact
    from netpredict.learn.shelf import predictor_of

    if not job.incumbent:
        return {}, ""
    try:
        artefact = load_artefact(Path(job.incumbent), job.incumbent_version)
        identity = artefact.manifest.identity
        if (identity.features, identity.output) != (job.features, job.output):
            raise ArtefactError(f"{artefact.version} was trained for other columns, levels or horizon")
        return held_out(predictor_of(artefact), dataset), ""
    except NetpredictError as error:
        return {}, str(error)


def _print_progress(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
    step = Step(done, total, loss, validation_loss, left_s)  # NaN is written as null
    print(msgspec.json.encode(step).decode(), flush=True)


def main(folder: Path, nice: int) -> int:
    """Work, and leave a result whatever happens; 1 when it is an error."""
    os.nice(nice)
    with contextlib.suppress(OSError):  # when memory runs out for all, the daemon is not the one to go
        Path("/proc/self/oom_score_adj").write_text("900")
    try:
        result = work(folder)
    except Exception as error:
        result = Result(error=type(error).__name__, detail=str(error))
        if not isinstance(error, NetpredictError):
            sys.excepthook(type(error), error, error.__traceback__)
    draft = folder / f".{RESULT}"
    draft.write_bytes(msgspec.json.encode(result))
    draft.rename(folder / RESULT)
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
