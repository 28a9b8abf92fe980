"""The shelf of model versions behind a store: artefacts become predictors that serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from netpredict.build import build_predictor
from netpredict.config import Config
from netpredict.errors import ArtefactError, PluginError
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.learn.registry import load_artefact
from netpredict.plugins import load, options_of
from netpredict.store.commit import ModelRow
from netpredict.stream import Stream

UNTRAINED = "-"
"""Version of a predictor without weights, and of the ladder's rows while no version serves."""


class ModelTable(Protocol):
    """The part of a store that knows model versions."""

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
        """Id of a version; the same natural key again gives the same id."""
        ...

    def models(self, stream: str | None = None) -> list[ModelRow]:
        """All versions, oldest first."""
        ...


class StoreShelf:
    """Loads versions once and keeps them. ``streams`` are those of the pipeline that asks."""

    def __init__(self, config: Config, store: ModelTable, streams: Sequence[Stream]) -> None:
        self._config = config
        self._store = store
        self._streams = {stream.name: stream for stream in streams}
        self._loaded: dict[tuple[str, str, str], tuple[int, Predictor]] = {}

    def load(self, stream: str, predictor: str, version: str) -> tuple[int, Predictor]:
        """See ``netpredict.pipeline.ModelShelf``."""
        key = (stream, predictor, version)
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    def _load(self, stream_name: str, name: str, version: str) -> tuple[int, Predictor]:
        stream = self._streams[stream_name]
        if version == UNTRAINED:
            model_id = self.placeholder(stream_name, name)
            return model_id, build_predictor(name, self._config, stream.features, stream.output)
        row = self._row(stream_name, name, version)
        artefact = load_artefact(Path(row.folder), version)
        identity = artefact.manifest.identity
        if (identity.features, identity.output) != (stream.features, stream.output):
            raise ArtefactError(f"{name}@{version} was trained for other columns, levels or horizon; train it again")
        predictor: Predictor = load("predictors", identity.predictor).build(
            self._options(identity.predictor, identity.options), stream.features, stream.output
        )
        if not isinstance(predictor, Trainable):
            raise PluginError(f"predictor {identity.predictor!r} takes no weights")
        predictor.load_weights(artefact.weights)
        return row.model_id, predictor

    def _options(self, plugin: str, raw: dict[str, object]) -> object:
        return options_of(load("predictors", plugin), raw, f"artefact of {plugin}")

    def _row(self, stream: str, name: str, version: str) -> ModelRow:
        for row in self._store.models(stream):
            if (row.predictor, row.version) == (name, version):
                return row
        raise ArtefactError(f"the store knows no version {version} of {name} on stream {stream}")

    def active(self, stream: str, predictor: str) -> str | None:
        """See ``netpredict.pipeline.ModelShelf``. The newest one, when several are active."""
        if not load("predictors", self._config.predictors[predictor].plugin).trainable:
            return UNTRAINED
        stages = {row.version: row for row in self._store.models(stream) if row.predictor == predictor}
        active = [version for version, row in stages.items() if row.stage == "active"]
        return active[-1] if active else None

    def placeholder(self, stream: str, predictor: str) -> int:
        """See ``netpredict.pipeline.ModelShelf``."""
        plugin = self._config.predictors[predictor].plugin
        stage = "retired" if load("predictors", plugin).trainable else "active"
        return self._store.register_model(stream, predictor, UNTRAINED, plugin, "", {}, stage)
