"""TensorFlow and Keras as the recurrent modules import them: without what their C++ side logs while it loads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from netpredict.errors import ConfigError


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """TensorFlow's C++ side logs while it is imported, before any level applies; TF_CPP_MIN_LOG_LEVEL=0 keeps that."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


with _hushed():
    import keras
    import tensorflow as tf

__all__ = ["check_backend", "keras", "tf"]


def check_backend() -> None:
    """ConfigError when Keras was told to compute with something else than TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(f"KERAS_BACKEND is {keras.backend.backend()!r}; netpredict needs tensorflow")
