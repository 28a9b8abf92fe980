"""Artefacts on disk: a folder with ``manifest.json`` and ``weights.safetensors``, refused when a byte is off.

No pickle and no Keras file is ever read: the network is built from whitelisted options, and weights are tensors only.
The id of a version is the hash of all that determines its answers, so that the same training gives the same id.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as bytes_of

from netpredict import crash
from netpredict.errors import ArtefactError
from netpredict.types import AnyArray, FeatureSpec, OutputSpec, TrainingReport

SCHEMA = "netpredict.artefact/1"
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
MANIFEST_MAX_BYTES = 1 << 20
WEIGHTS_MAX_BYTES = 256 << 20
_PACKAGES = ("tensorflow", "keras", "numpy")
_FLAGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS")
_ID_DIGITS = 12


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and dtype of one tensor of the weights."""

    shape: tuple[int, ...]
    dtype: str


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that determines the answers of a model version, and nothing that changes from run to run."""

    predictor: str
    options: dict[str, Any]
    features: FeatureSpec
    output: OutputSpec
    tensors: dict[str, Tensor]
    weights_sha256: str
    weights_bytes: int
    packages: dict[str, str]
    flags: dict[str, str]
    seed: int
    window_us: tuple[int, int]
    scores: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``manifest.json``: the identity, the id that follows from it, and how the training went."""

    schema: str
    version: str
    identity: Identity
    trained_at_us: int
    training_s: float
    loss: list[float | None]
    validation_loss: list[float | None]


@dataclass(frozen=True)
class Artefact:
    """A verified artefact; ``weights`` go to ``Trainable.load_weights``."""

    folder: Path
    manifest: Manifest
    weights: Mapping[str, AnyArray]

    @property
    def version(self) -> str:
        """The id of the model version."""
        return self.manifest.version


@dataclass(frozen=True)
class Trained:
    """What there is to save of a training. ``window_us`` is the time of the first and behind the last step seen."""

    predictor: str
    options: Mapping[str, Any]
    features: FeatureSpec
    output: OutputSpec
    weights: Mapping[str, AnyArray]
    report: TrainingReport
    window_us: tuple[int, int]
    trained_at_us: int
    seed: int = 0


def version_of(identity: Identity) -> str:
    """The short hash of an identity."""
    return hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).hexdigest()[:_ID_DIGITS]


def save_artefact(folder: Path, trained: Trained, extras: Callable[[Path], None] | None = None) -> Artefact:
    """Write an artefact whole or not at all, and read it back. An equal one that already stands there is left alone.

    ``extras`` may put further files (a picture) into the folder before it appears under its name.
    """
    blob = bytes_of({name: np.ascontiguousarray(tensor) for name, tensor in trained.weights.items()})
    manifest = _manifest(trained, blob)
    if folder.exists():
        there = load_artefact(folder)
        if there.version != manifest.version:
            raise ArtefactError(f"{folder} already holds version {there.version}; choose another folder")
        return there
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        draft.chmod(0o755)
        _write(draft / WEIGHTS, blob)
        crash.reached("mid_artefact")
        _write(draft / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1))
        if extras is not None:
            extras(draft)
        _sync(draft)
        draft.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        raise ArtefactError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return load_artefact(folder, manifest.version)


def load_artefact(folder: Path, version: str | None = None) -> Artefact:
    """Read and verify; ArtefactError says what is wrong. ``version``, when given, is the only one accepted."""
    manifest = _decoded(folder, _bounded(folder / MANIFEST, MANIFEST_MAX_BYTES))
    if manifest.schema != SCHEMA:
        raise ArtefactError(f"{folder} is of schema {manifest.schema!r}; this release reads {SCHEMA!r}")
    identity = manifest.identity
    if manifest.version != version_of(identity):
        raise ArtefactError(f"{folder / MANIFEST} was changed: its content no longer gives version {manifest.version}")
    if version is not None and manifest.version != version:
        raise ArtefactError(f"{folder} holds version {manifest.version}, not {version}")
    blob = _bounded(folder / WEIGHTS, WEIGHTS_MAX_BYTES)
    if len(blob) != identity.weights_bytes:
        raise ArtefactError(f"{folder / WEIGHTS} has {len(blob)} bytes, its manifest says {identity.weights_bytes}")
    if hashlib.sha256(blob).hexdigest() != identity.weights_sha256:
        raise ArtefactError(f"{folder / WEIGHTS} does not have the SHA-256 of its manifest")
    return Artefact(folder, manifest, _tensors(folder, blob, identity.tensors))


def _manifest(trained: Trained, blob: bytes) -> Manifest:
    identity = Identity(
        predictor=trained.predictor,
        options=dict(trained.options),
        features=trained.features,
        output=trained.output,
        tensors={name: Tensor(np.shape(array), str(array.dtype)) for name, array in trained.weights.items()},
        weights_sha256=hashlib.sha256(blob).hexdigest(),
        weights_bytes=len(blob),
        packages={name: metadata.version(name) for name in _PACKAGES},
        flags={name: os.environ.get(name, "") for name in _FLAGS},
        seed=trained.seed,
        window_us=trained.window_us,
        scores={name: score for name, score in trained.report.scores.items() if math.isfinite(score)},
    )
    report = trained.report
    manifest = Manifest(
        schema=SCHEMA,
        version=version_of(identity),
        identity=identity,
        trained_at_us=trained.trained_at_us,
        training_s=report.training_s,
        loss=list(report.loss),
        validation_loss=list(report.validation_loss),
    )
    return msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)  # as a reader will see it: NaN is null


def _decoded(folder: Path, raw: bytes) -> Manifest:
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ArtefactError(f"{folder / MANIFEST} is not a manifest: {error}") from error


def _tensors(folder: Path, blob: bytes, expected: Mapping[str, Tensor]) -> Mapping[str, AnyArray]:
    try:
        tensors = tensors_of(blob)
    except Exception as error:  # safetensors raises its own class, KeyError for an unknown dtype, and others
        raise ArtefactError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    found = {name: Tensor(array.shape, str(array.dtype)) for name, array in tensors.items()}
    if found != dict(expected):
        unlike = sorted(name for name in set(found) | set(expected) if found.get(name) != expected.get(name))
        raise ArtefactError(f"{folder / WEIGHTS} and its manifest differ in the tensors {unlike}")
    return tensors


def _bounded(path: Path, most_bytes: int) -> bytes:
    """A regular file, not a link, of a bounded size; read once, so that what is hashed is what is used."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            raw = file.read(most_bytes + 1)
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > most_bytes:
        raise ArtefactError(f"{path} is larger than {most_bytes} bytes")
    return raw


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
