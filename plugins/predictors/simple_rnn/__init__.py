"""Plain recurrent network: the smallest and fastest, with a short memory."""

from __future__ import annotations

from netpredict.forecast.adapt import adapted
from netpredict.forecast.predictor import Trainable
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, OutputSpec


class SimpleRnnOptions(RecurrentOptions, frozen=True, kw_only=True):
    """Settings of the SimpleRNN predictor; sample.toml explains each."""


def build(options: SimpleRnnOptions, features: FeatureSpec, output: OutputSpec) -> Trainable:
    """An untrained predictor; it serves once weights are loaded."""
    return adapted(RecurrentPredictor("simple_rnn", options, features, output), options, features)


PLUGIN = Plugin(name="simple_rnn", options=SimpleRnnOptions, build=build, trainable=True)
