"""ConvLSTM2D: a grid of radio cells as one series, every place with its neighbours."""

from __future__ import annotations

from netpredict.forecast.adapt import adapted
from netpredict.forecast.convolution import ConvLstmOptions, ConvLstmPredictor
from netpredict.forecast.predictor import Trainable
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, OutputSpec


def build(options: ConvLstmOptions, features: FeatureSpec, output: OutputSpec) -> Trainable:
    """An untrained predictor; it serves once weights are loaded."""
    return adapted(ConvLstmPredictor(options, features, output), options, features)


PLUGIN = Plugin(name="conv_lstm", options=ConvLstmOptions, build=build, trainable=True)
