"""Several networks that differ in their seed alone and answer as one: the mean of their quantiles.

What one network makes of chance in its first weights and in the order of its minibatches is averaged out. The members
share the encoder, which nothing trains, so that its inputs are made once; each has its own rows of ``rnn``. The mean
of quantiles has a pinball loss that is at most the mean of the members' (the loss is convex in the quantile).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec
import numpy as np

from netpredict.forecast import bptt
from netpredict.forecast.backend import tf
from netpredict.forecast.network import Network, assigned, copied
from netpredict.forecast.options import RecurrentOptions
from netpredict.types import FeatureSpec, OutputSpec, Progress, TrainingReport, TrainingSet

SEEDS = 10_000
"""Between the seeds of two members; within one network they lie less than this apart."""


class Ensemble:
    """``options.ensemble`` networks of a kind. ``rnn`` is (n, members * state rows, units), that of the first in front.

    The first member has the weights that a network of the same options without ensemble would have.
    """

    def __init__(
        self, kind: type[Network], layer: str, options: RecurrentOptions, features: FeatureSpec, output: OutputSpec
    ) -> None:
        self.options = options
        self.members = [kind(layer, _of_member(options, 0), features, output)]
        self.encoder = self.members[0].encoder
        for number in range(1, options.ensemble):
            self.members.append(kind(layer, _of_member(options, number), features, output, self.encoder))
        self._rows, *shape = self.members[0].rnn_shape
        self.rnn_shape = (self._rows * options.ensemble, *shape)

    def named(self) -> dict[str, Any]:
        """Every tensor by name: those of member n as ``member_n.``…, the encoder's once, under their own."""
        shared = self.encoder.named()
        own = {
            f"member_{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.named().items()
            if name not in shared
        }
        return own | shared

    def values(self) -> dict[str, Any]:
        """A copy of every tensor, as numpy."""
        return copied(self.named())

    def assign(self, weights: Mapping[str, Any]) -> None:
        """Take every tensor at once; ArtefactError, and nothing taken, when names, shapes or dtypes differ."""
        assigned(self.named(), weights)

    def step(self, features: Any, rnn: Any, scaler: Any) -> tuple[Any, Any, Any]:
        """See ``Network.step``: the mean answer, in the KPI's own steps where that is asked for."""
        seen = self.members[0].seen(features, scaler)
        parts = tf.split(rnn, len(self.members), axis=1)
        answers, after = zip(*(m.answer(seen, part) for m, part in zip(self.members, parts, strict=True)), strict=True)
        mean = tf.add_n(answers) / len(answers)
        return self.members[0].in_grains(mean), tf.concat(after, axis=1), seen.scaler

    def fit(self, dataset: TrainingSet, progress: Progress | None) -> TrainingReport:
        """Train one member after the other, each as a network alone.

        The report has the mean of their losses by train_epoch, of those that went on so long, and the mean of their
        scores: pinball loss and absolute error of the mean forecast are no higher.
        """
        started_s = time.monotonic()
        reports = [
            bptt.fit(member, member.options, dataset, progress and self._told(progress, number, started_s))
            for number, member in enumerate(self.members)
        ]
        losses, validation_losses = (
            list(_means([getattr(report, name) for report in reports])) for name in ("loss", "validation_loss")
        )
        scores = {name: float(np.mean([each.scores[name] for each in reports])) for name in reports[0].scores}
        return TrainingReport(len(losses), time.monotonic() - started_s, losses, validation_losses, scores)

    def _told(self, progress: Progress, number: int, started_s: float) -> Progress:
        """Tell of all members as of one training."""

        def told(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
            done, total = number * total + done, len(self.members) * total
            passed_s = time.monotonic() - started_s
            progress(done, total, loss, validation_loss, passed_s / done * (total - done))

        return told


def _of_member(options: RecurrentOptions, number: int) -> RecurrentOptions:
    return msgspec.structs.replace(options, ensemble=1, seed=options.seed + SEEDS * number)


def _means(curves: Sequence[Sequence[float]]) -> Iterator[float]:
    """By train_epoch, over the members that went on so long."""
    for at_once in zip_longest(*curves):
        yield float(np.mean([loss for loss in at_once if loss is not None]))
