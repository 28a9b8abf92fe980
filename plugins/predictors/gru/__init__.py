"""Gated recurrent unit: one vector of hidden state a layer. The first one to try."""

from __future__ import annotations

from netpredict.forecast.adapt import adapted
from netpredict.forecast.predictor import Trainable
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, OutputSpec


class GruOptions(RecurrentOptions, frozen=True, kw_only=True):
    """Settings of the GRU predictor; sample.toml explains each."""

    reset_after: bool = True


def build(options: GruOptions, features: FeatureSpec, output: OutputSpec) -> Trainable:
    """An untrained predictor; it serves once weights are loaded."""
    return adapted(RecurrentPredictor("gru", options, features, output), options, features)


PLUGIN = Plugin(name="gru", options=GruOptions, build=build, trainable=True)
