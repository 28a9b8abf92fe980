"""Whole sequences on a GPU by cuDNN against the step of the daemon on the CPU; skipped where there is no GPU."""

import numpy as np
import pytest

from netpredict.forecast.backend import tf
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec
from tests.forecast.networks import Options, keras_layer, shaken

pytestmark = pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="TensorFlow sees no GPU here")

FEATURES = FeatureSpec(("load", "users"), 3_600_000_000, 24, 86_400_000_000)
SERIES, STEPS = 64, 200


@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_a_layer_qualifies_for_cudnn_and_agrees_with_the_step_on_the_cpu(layer):
    predictor = RecurrentPredictor(layer, Options(layers=2), FEATURES, OutputSpec(("load",), 3, (0.5,)))
    stack = shaken(predictor)._network.stack
    sequence = np.random.default_rng(3).normal(size=(SERIES, STEPS, stack.width)).astype(np.float32)

    with tf.device("CPU:0"):
        rows, stepped = [tf.zeros((SERIES, 32))] * stack.rows, []
        for step in np.moveaxis(sequence, 1, 0):
            output, rows = stack.step(tf.constant(step), rows)
            stepped.append(output.numpy())
    with tf.device("GPU:0"):
        whole = tf.constant(sequence)
        for one in stack.layers:
            whole, *last = keras_layer(layer, one, use_cudnn=True)(whole)  # raises where cuDNN will not take it

    np.testing.assert_allclose(np.stack(stepped, axis=1), whole.numpy(), atol=2e-3)
    for mine, theirs in zip(rows[-len(last) :], last, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
