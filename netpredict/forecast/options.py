"""The settings of the recurrent predictors, without TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class RecurrentOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every recurrent predictor can be told; a plugin adds what is its layer's own."""

    units: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    layers: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    activation: Literal["tanh", "relu", "sigmoid", "elu", "selu", "softsign", "linear"] = "tanh"
    dropout: Rate = 0.0
    recurrent_dropout: Rate = 0.0
    l2: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    layer_normalisation: bool = False
    scaler_steps: Count = 200
    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 0.003
    clip_norm: Positive = 1.0
    loss: Literal["pinball"] = "pinball"
    train_epochs: Count = 20
    patience: Count = 4
    minibatch_size: Count = 64
    bptt_steps: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 1
