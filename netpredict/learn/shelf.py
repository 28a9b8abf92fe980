"""The shelf of model versions behind a store: artefacts become predictors that serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netpredict.build import build_predictor
from netpredict.config import Config
from netpredict.errors import ArtefactError, NetpredictError, PluginError
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.learn.registry import Artefact, load_artefact
from netpredict.plugins import load, options_of
from netpredict.store.commit import ModelNames, ModelRow
from netpredict.stream import Stream

UNTRAINED = "-"
"""Version of a predictor without weights, and of the ladder's rows while no version serves."""


def predictor_of(artefact: Artefact) -> Trainable:
    """The predictor that an artefact describes, with its weights; an error of ours says why not."""
    identity = artefact.manifest.identity
    plugin = load("predictors", identity.predictor)
    options = options_of(plugin, identity.options, f"artefact {artefact.folder}")
    try:
        predictor = plugin.build(options, identity.features, identity.output)
        if not isinstance(predictor, Trainable):
            raise PluginError(f"predictor {identity.predictor!r} takes no weights")
        predictor.load_weights(artefact.weights)
    except NetpredictError:
        raise
    except Exception as error:  # a plugin may raise anything: its artefact is refused, the pipeline goes on
        raise ArtefactError(f"{artefact.folder}: {identity.predictor} cannot take it: {error}") from error
    return predictor


def predictor_for(stream: Stream, name: str, artefact: Artefact) -> Trainable:
    """As ``predictor_of``; ArtefactError when it was trained for another stream than this one is now."""
    identity = artefact.manifest.identity
    if (identity.features, identity.output) != (stream.features, stream.output):
        raise ArtefactError(
            f"{name}@{artefact.version} was trained for other columns, levels or horizon; train it again"
        )
    return predictor_of(artefact)


class StoreShelf:
    """Loads versions once and keeps them. ``streams`` are those of the pipeline that asks."""

    def __init__(self, config: Config, store: ModelNames, streams: Sequence[Stream]) -> None:
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
        return row.model_id, predictor_for(stream, name, artefact)

    def _row(self, stream: str, name: str, version: str) -> ModelRow:
        for row in self._store.models(stream):
            if (row.predictor, row.version) == (name, version):
                return row
        raise ArtefactError(f"the store knows no version {version} of {name} on stream {stream}")

    def active(self, stream: str, predictor: str) -> str | None:
        """See ``netpredict.pipeline.ModelShelf``. The newest one, when several are active."""
        if not load("predictors", self._config.predictors[predictor].plugin).trainable:
            return UNTRAINED
        active = self._versions(stream, predictor, "active")
        return active[-1] if active else None

    def challenger(self, stream: str, predictor: str) -> str | None:
        """See ``netpredict.pipeline.ModelShelf``."""
        challengers = self._versions(stream, predictor, "challenger")
        return challengers[-1] if challengers else None

    def earlier(self, stream: str, predictor: str) -> list[str]:
        """See ``netpredict.pipeline.ModelShelf``."""
        return [version for version in reversed(self._versions(stream, predictor, "retired")) if version != UNTRAINED]

    def _versions(self, stream: str, predictor: str, stage: str) -> list[str]:
        rows = self._store.models(stream)
        return [row.version for row in rows if (row.predictor, row.stage) == (predictor, stage)]

    def placeholder(self, stream: str, predictor: str) -> int:
        """See ``netpredict.pipeline.ModelShelf``."""
        plugin = self._config.predictors[predictor].plugin
        stage = "retired" if load("predictors", plugin).trainable else "active"
        return self._store.register_model(stream, predictor, UNTRAINED, plugin, "", {}, stage)
