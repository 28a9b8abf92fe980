"""How weights follow their gradients: the optimisers by name."""

from __future__ import annotations

from typing import Any

from netpredict.forecast.backend import keras

_OPTIMISERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def optimiser(options: Any) -> Any:
    """The optimiser of these options; gradients are clipped to ``clip_norm`` over all weights together."""
    return _OPTIMISERS[options.optimiser](options.learning_rate, global_clipnorm=options.clip_norm)
