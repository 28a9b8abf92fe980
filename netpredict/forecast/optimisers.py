"""How weights follow their gradients: optimisers by name, clipping, and the learning rate along a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from netpredict.forecast.backend import keras, tf
from netpredict.forecast.options import RecurrentOptions

_PLATEAU_FACTOR = 0.5
_FIRST_OF_WARMUP = 0.05  # a rate of zero would waste the first minibatch

_OPTIMISERS: dict[str, Callable[[RecurrentOptions], Any]] = {
    "adam": lambda options: keras.optimizers.Adam(options.learning_rate),
    "adamw": lambda options: keras.optimizers.AdamW(options.learning_rate, weight_decay=options.weight_decay),
    "rmsprop": lambda options: keras.optimizers.RMSprop(options.learning_rate, momentum=options.momentum),
    "adagrad": lambda options: keras.optimizers.Adagrad(options.learning_rate),
    "sgd": lambda options: keras.optimizers.SGD(
        options.learning_rate, momentum=options.momentum, nesterov=options.nesterov
    ),
}


def optimiser(options: RecurrentOptions) -> Any:
    """The optimiser of these options; it clips nothing itself, see ``clipped``."""
    return _OPTIMISERS[options.optimiser](options)


def clipped(gradients: list[Any], options: RecurrentOptions) -> list[Any]:
    """Each element within ``clip_value``, then all together within ``clip_norm``; 0 = not at all."""
    if options.clip_value:
        gradients = [tf.clip_by_value(gradient, -options.clip_value, options.clip_value) for gradient in gradients]
    if options.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, options.clip_norm)
    return gradients


class Schedule:
    """The learning rate: a line up during ``warmup_epochs``, then as ``schedule`` says."""

    def __init__(self, options: RecurrentOptions) -> None:
        self._options, self._factor, self._since = options, 1.0, 0

    def rate(self, done: float) -> float:
        """The rate after so many train_epochs, counted in fractions."""
        options = self._options
        if done < options.warmup_epochs:
            return options.learning_rate * max(_FIRST_OF_WARMUP, done / options.warmup_epochs)
        share = (done - options.warmup_epochs) / (options.train_epochs - options.warmup_epochs)
        last = options.final_rate_ratio
        if options.schedule == "cosine":
            return options.learning_rate * (last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * share)))
        if options.schedule == "exponential":
            return options.learning_rate * float(last**share)
        return options.learning_rate * self._factor

    def judge(self, improved: bool) -> None:
        """A train_epoch is validated: ``plateau`` halves the rate at half the patience, down to the last ratio."""
        self._since = 0 if improved else self._since + 1
        if self._options.schedule == "plateau" and self._since >= max(1, self._options.patience // 2):
            self._factor, self._since = max(self._options.final_rate_ratio, self._factor * _PLATEAU_FACTOR), 0
