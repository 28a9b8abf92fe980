"""ConvLSTM2D: a grid of radio cells as one series, every place with its neighbours."""

from __future__ import annotations

from netpredict.forecast.convolution import ConvLstmOptions, ConvLstmPredictor
from netpredict.plugins import Plugin

PLUGIN = Plugin(name="conv_lstm", options=ConvLstmOptions, build=ConvLstmPredictor, trainable=True)
