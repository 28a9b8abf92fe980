"""Does an artefact load under this release? The same steps as live, and one answer, before anybody depends on it."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import numpy as np

from netpredict.errors import ArtefactError, NetpredictError
from netpredict.learn.registry import Artefact, Identity, load_artefact
from netpredict.learn.shelf import predictor_of

PROBE_ROWS = 16


def damage(folder: Path, version: str) -> str:
    """What is wrong with the files of an artefact, empty when they are whole. Nothing is built: this is quick."""
    try:
        load_artefact(folder, version)
    except ArtefactError as error:
        return str(error)
    return ""


def check_artefact(folder: Path, version: str | None = None) -> tuple[Artefact, list[str]]:
    """Load and answer once; gives the artefact and warnings. An error of ours says why it does not load.

    1 manifest, sizes, hashes, tensors; 2 plugin, options, weights; 3 one answer to rows of missing values.
    Warnings: packages and flags other than those it was trained under; its answers may differ in the last bits.
    """
    artefact = load_artefact(folder, version)  # 1
    predictor = predictor_of(artefact)  # 2
    identity = artefact.manifest.identity
    hidden = {
        name: np.full((PROBE_ROWS, *spec.shape), spec.fill, spec.dtype) for name, spec in predictor.state_spec().items()
    }
    features = np.full((PROBE_ROWS, identity.features.width), np.nan, np.float32)
    features[:, len(identity.features.observed) :] = 0.0
    try:
        outputs, _ = predictor.advance(features, hidden)  # 3
    except NetpredictError:
        raise
    except Exception as error:
        raise ArtefactError(f"{folder}: {identity.predictor} loads, but cannot answer: {error}") from error
    shape = (PROBE_ROWS, identity.output.horizon_steps, len(identity.output.levels))
    if unlike := [kpi for kpi in identity.output.kpis if kpi not in outputs or outputs[kpi].shape != shape]:
        raise ArtefactError(f"{folder}: the answers for {unlike} are not of shape {shape}")
    return artefact, _differences(identity)


def _differences(identity: Identity) -> list[str]:
    here = {name: _installed(name) for name in identity.packages}
    pairs = [(name, there, here[name]) for name, there in identity.packages.items()]
    pairs += [(name, there, os.environ.get(name, "")) for name, there in identity.flags.items()]
    return [
        f"{name} is {now or 'not set'}, trained under {then or 'not set'}" for name, then, now in pairs if then != now
    ]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
