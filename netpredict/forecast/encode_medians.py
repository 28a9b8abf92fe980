"""What a network sees of a series that stands at a level under spikes: running medians and means of several spans.

The answer of the network is added to the first median in place of the last value, which a spike would throw off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netpredict.forecast.backend import tf
from netpredict.forecast.encode import COUNT_ROW, Encoded, Encoder
from netpredict.forecast.predictor import ABSURD
from netpredict.types import FeatureSpec


class MediansEncoder(Encoder):
    """Beside the scaler it keeps ``newest``, the last values, newest first, and ``means``, one for each span."""

    def __init__(self, features: FeatureSpec, options: Any) -> None:
        self._medians, self._spans = options.median_steps, options.mean_steps
        super().__init__(features, options.scaler_steps, len(self._medians) + len(self._spans))
        self.state_shapes |= {
            "newest": (max(self._medians), self.columns),
            "means": (len(self._spans), self.columns),
        }

    def clock(self, calendar: Any) -> Any:
        """Hour and season; a few weeks would teach a network single days by their weekday, not weekdays."""
        return super().clock(calendar) * tf.constant([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])

    def scale(self, values: Any, calendar: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """See the contract; the first value fills every array, a missing one leaves them alone."""
        after = super().scale(values, calendar, state)
        value, is_first = after["scaler"][:, :1], state["scaler"][:, COUNT_ROW:] < 0.5
        is_seen = (tf.abs(values) < ABSURD)[:, None]
        pace = tf.constant([1.0 / span for span in self._spans])[None, :, None]
        newest, means = state["newest"], state["means"]
        pushed = tf.where(is_first, value, tf.concat([value, newest[:, :-1]], axis=1))
        moved = tf.where(is_first, value, means + pace * (value - means))
        return {**after, "newest": tf.where(is_seen, pushed, newest), "means": tf.where(is_seen, moved, means)}

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; ``centre`` is the first median, for all leads."""
        plain = super().encode(values, calendar, before, after)
        medians = [_median(after["newest"][:, :steps]) for steps in self._medians]
        centre = medians[0]
        around = [plain.last, *medians[1:], *tf.unstack(after["means"], axis=1)]
        away = [((each - centre) / plain.scale)[:, None] for each in around]
        return plain._replace(inputs=self.beside(plain.inputs, away), centre=centre[:, :, None])


def _median(ring: Any) -> Any:
    """(n, odd steps, k) -> (n, k)."""
    return tf.sort(ring, axis=1)[:, ring.shape[1] // 2]
