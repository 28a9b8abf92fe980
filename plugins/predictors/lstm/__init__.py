"""Long short-term memory: two vectors of hidden state a layer, the longest memory, the largest state."""

from __future__ import annotations

from netpredict.forecast.adapt import adapted
from netpredict.forecast.predictor import Trainable
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, OutputSpec


class LstmOptions(RecurrentOptions, frozen=True, kw_only=True):
    """Settings of the LSTM predictor; sample.toml explains each."""

    unit_forget_bias: bool = True


def build(options: LstmOptions, features: FeatureSpec, output: OutputSpec) -> Trainable:
    """An untrained predictor; it serves once weights are loaded."""
    return adapted(RecurrentPredictor("lstm", options, features, output), options, features)


PLUGIN = Plugin(name="lstm", options=LstmOptions, build=build, trainable=True)
