"""A trainable predictor without TensorFlow: a leaky mean with a weight, and a state as wide as its options say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from netpredict.errors import ArtefactError
from netpredict.learn.registry import Trained, save_artefact
from netpredict.plugins import Plugin
from netpredict.stream import Stream
from netpredict.testing import LeakyMean
from netpredict.types import FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, StateArray, TrainingReport

NAME = "stub"


class StubOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``width`` is the width of an otherwise idle part of the state: how often a series was advanced."""

    width: int = 1


class Stub(LeakyMean):
    """See the module."""

    def __init__(self, options: StubOptions, features: FeatureSpec, output: OutputSpec) -> None:
        super().__init__(features, output)
        self._width = options.width

    def state_spec(self) -> Mapping[str, StateArray]:
        """That of the leaky mean, and a counter of some width."""
        return {**super().state_spec(), "advanced": StateArray((self._width,))}

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """As the leaky mean does."""
        outputs, new = super().advance(features, hidden)
        return outputs, {**new, "advanced": hidden["advanced"] + 1}

    def fit(self, dataset: Any, progress: Any = None) -> TrainingReport:
        """The child of the tests is another one."""
        raise NotImplementedError

    def weights(self) -> Mapping[str, Any]:
        """One number."""
        return {"memory": np.array([self._memory], np.float32)}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """One number."""
        if set(weights) != {"memory"}:
            raise ArtefactError(f"weights {sorted(weights)}, not those of a stub")
        self._memory = np.float32(weights["memory"][0])


PLUGIN = Plugin(NAME, options=StubOptions, build=Stub, trainable=True)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it known for the length of a test, as an installed package would."""
    point = EntryPoint(NAME, f"{__name__}:PLUGIN", "netpredict.predictors")

    def with_stub(*, group: str) -> list[EntryPoint]:
        return [*entry_points(group=group), *([point] if group == point.group else [])]

    monkeypatch.setattr("netpredict.plugins.entry_points", with_stub)


def artefact(folder: Path, stream: Stream, memory: float, width: int = 1) -> str:
    """Save a version below ``folder``; its id."""
    weights = {"memory": np.array([memory], np.float32)}
    report = TrainingReport(1, 1.0, [0.1], [0.1], {"skill": 0.5})
    made = Trained(NAME, {"width": width}, stream.features, stream.output, weights, report, (0, 1), 0)
    draft = save_artefact(folder / f"draft-{memory}-{width}", made)
    return draft.folder.rename(folder / draft.version).name
