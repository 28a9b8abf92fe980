"""How a recurrent network gets from its hidden vector to all leads: the structures, each a small class.

Contract of a structure. ``answer(at)`` gives the raw answers of all leads, (m, kpis, parts, leads), from what is known
``At`` m steps: live these are the n series of a round, in validation all steps of a chunk. ``teach(at, teacher)`` gives
those that the loss is taken of, with ``taught_leads`` leads; ``taught_steps`` says at which steps of a chunk. What is
carried from step to step is the hidden state of the stack alone: whatever a structure adds starts anew at every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from netpredict.forecast.backend import keras, tf
from netpredict.forecast.categorical import CategoricalHead
from netpredict.forecast.encode import CLIP, Encoded, Encoder
from netpredict.forecast.encode_history import HistoryEncoder
from netpredict.forecast.encode_levels import LevelsEncoder
from netpredict.forecast.encode_medians import MediansEncoder
from netpredict.forecast.encode_season import SeasonEncoder
from netpredict.forecast.heads import MixtureHead, PointHead, QuantileHead, Reference, ShareHead
from netpredict.forecast.lags import LagEncoder
from netpredict.forecast.stack import Stack, recurrent_layer, repeated, stacked
from netpredict.types import FeatureSpec, OutputSpec

Head: TypeAlias = QuantileHead | PointHead | CategoricalHead

_DENSE_SEEDS = 500
_DECODER_SEEDS = 1000  # keeps the first weights of a decoder apart from those of the stack


class At(NamedTuple):
    """What is known at m steps: output of the stack (m, units), state rows after them, inputs, the encoder's arrays."""

    output: Any
    rows: list[Any]
    encoded: Encoded
    reference: Reference
    scaler: Any
    calendar: Any


class Teacher(NamedTuple):
    """Targets (m, kpis, leads) in units of the reference, and 1 where there is one."""

    target: Any
    valid: Any


class Frame:
    """What every structure is built from: the options, the encoder and the stack that carries the hidden state."""

    places = 1

    def __init__(
        self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec, encoder: Encoder | None = None
    ) -> None:
        self.layer, self.options, self.output = layer, options, output
        self.encoder = encoder or encoder_of(options, features, output)
        self.kpi_columns = [features.observed.index(kpi) for kpi in output.kpis]
        self.stack = self._stacked(features)

    def _stacked(self, features: FeatureSpec) -> Stack:
        return stacked(self.layer, "rnn", self.options.seed, self.options, self.encoder.width)

    def of_kpis(self, columns: Any) -> Any:
        """(n, k, …) of the observed columns -> (n, kpis, …) of the forecast ones."""
        return tf.gather(columns, self.kpi_columns, axis=1)

    def reference(self, encoded: Encoded) -> Reference:
        """What the units of the head refer to."""
        centre, candidates = self.of_kpis(encoded.centre), self.of_kpis(encoded.candidates)
        return Reference(centre, self.of_kpis(encoded.scale)[:, :, None], candidates)


def encoder_of(options: Any, features: FeatureSpec, output: OutputSpec) -> Encoder:
    """The one that ``inputs`` names; with one-hot lags where the loss is over classes."""
    scaled = _scaled_encoder_of(options, features, output)
    if options.loss == "cross_entropy":
        return LagEncoder(scaled, features, output.kpis, options.lags)
    return scaled


def _scaled_encoder_of(options: Any, features: FeatureSpec, output: OutputSpec) -> Encoder:
    if options.inputs == "season":
        return SeasonEncoder(features, output, options)
    if options.inputs == "medians":
        return MediansEncoder(features, options)
    if options.inputs == "history":
        return HistoryEncoder(features, options)
    if options.inputs == "levels":
        return LevelsEncoder(features, options)
    return Encoder(features, options.scaler_steps, calendar=options.calendar)


def head_of(frame: Frame, leads: int, point: bool) -> Head:
    """The head of these options: quantiles where the loss teaches them and the structure can carry them."""
    loss, output = frame.options.loss, frame.output
    if isinstance(frame.encoder, LagEncoder):
        first_lag = frame.options.units + frame.encoder.first_lag
        return CategoricalHead(output, frame.encoder.classes, first_lag, frame.options.by_distance)
    if loss == "bce":
        return ShareHead(output, leads, loss, frame.places)
    if point or loss != "pinball":
        return PointHead(output, leads, loss, frame.places)
    if frame.options.mixture:
        return MixtureHead(output, leads, frame.encoder.candidates)
    return QuantileHead(output, leads, frame.places)


class ManyToMany:
    """An output of all leads at every step, by one dense head."""

    taught_steps = "all"

    def __init__(self, frame: Frame) -> None:
        self.frame, self.taught_leads = frame, frame.output.horizon_steps
        self.head = head_of(frame, self._head_leads(), self._is_point())
        self.dense = self._dense_layer()
        seen = frame.options.units + (frame.encoder.width if self.head.sees_inputs else 0)
        self.head.build(frame.options.head_units or seen)

    def _dense_layer(self) -> Any:
        """The dense layer before the head, None without; it sees what the recurrent layers saw, too."""
        options = self.frame.options
        if not options.head_units:
            return None
        first = keras.initializers.GlorotUniform(seed=options.seed + _DENSE_SEEDS)
        dense = keras.layers.Dense(options.head_units, activation="silu", kernel_initializer=first, name="dense")
        dense.build((None, options.units + self.frame.encoder.width))
        return dense

    def _head_leads(self) -> int:
        return self.frame.output.horizon_steps

    def _is_point(self) -> bool:
        return False

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights beside the stack's."""
        return [self.head.dense] if self.dense is None else [self.dense, self.head.dense]

    def answer(self, at: At) -> Any:
        """See the contract."""
        if self.dense is None and not self.head.sees_inputs:
            return self.head.raw(at.output)
        both = tf.concat([at.output, at.encoded.inputs], axis=1)
        return self.head.raw(both if self.dense is None else self.dense(both))

    def teach(self, at: At, teacher: Teacher) -> Any:
        """See the contract."""
        return self.answer(at)

    def begin(self, done: float) -> None:
        """A train_epoch begins: 0 is the first, 1 the last."""


class ManyToOne(ManyToMany):
    """The same network, taught at the last step of a chunk only: ``return_sequences=False``."""

    taught_steps = "last"


class _Decoding(ManyToMany):
    """A second recurrence over the leads, with one head that they share."""

    def _head_leads(self) -> int:
        return 1

    def teach(self, at: At, teacher: Teacher) -> Any:
        """With dropout; a subclass says what the teacher is for."""
        return self._decoded(at, teacher)

    def answer(self, at: At) -> Any:
        """From its own outputs."""
        return self._decoded(at, None)

    def _decoded(self, at: At, teacher: Teacher | None) -> Any:
        raise NotImplementedError

    def _by_lead(self, raw: Any) -> Any:
        """(leads, m, kpis, parts, 1) -> (m, kpis, parts, leads)."""
        return tf.transpose(raw[..., 0], (1, 2, 3, 0))


class OneToMany(_Decoding):
    """The step's output, repeated for every lead, goes into a second recurrent layer that starts at zero."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        options = frame.options
        self._decoder = recurrent_layer(frame.layer, "decoder", options.seed + _DECODER_SEEDS, options, options.units)

    @property
    def parts(self) -> list[Any]:
        """Decoder and head."""
        return [*self._decoder.parts, self.head.dense]

    def _decoded(self, at: At, teacher: Teacher | None) -> Any:
        m, (units,) = tf.shape(at.output)[0], self._decoder.shape
        dropped, mask = self._decoder.masks(m) if teacher else (None, None)
        projected = self._decoder.project(at.output if dropped is None else at.output * dropped)

        def step(_: Any, rows: list[Any]) -> tuple[list[Any], list[Any]]:
            rows = self._decoder.recur(projected, rows, mask)
            return rows[:1], rows

        cold = [tf.zeros((m, units))] * self._decoder.states
        (hidden,), _ = repeated(self.taught_leads, step, cold, [(units,)])
        raw = self.head.raw(self._decoder.output(tf.reshape(hidden, (-1, units))))
        return self._by_lead(tf.reshape(raw, (self.taught_leads, -1, *self.head.shape)))


class Seq2Seq(_Decoding):
    """Encoder and decoder: the decoder starts from the encoder's state and sees the lead before and the calendar.

    The lead before is the true one as often as the teacher forces it in training, and its own median live.
    """

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        width = len(frame.kpi_columns) + frame.encoder.clock_width
        seed = frame.options.seed + _DECODER_SEEDS
        self._decoder = stacked(frame.layer, "decoder", seed, frame.options, width)
        self._seeds = keras.random.SeedGenerator(seed - 1)
        self._forcing = tf.Variable(frame.options.teacher_forcing, dtype=tf.float32, trainable=False)

    @property
    def parts(self) -> list[Any]:
        """Decoder and head."""
        return [*self._decoder.parts, self.head.dense]

    def begin(self, done: float) -> None:
        """Teacher forcing goes in a line from its first to its last ratio."""
        first, last = self.frame.options.teacher_forcing, self.frame.options.teacher_forcing_last
        self._forcing.assign(first + (last - first) * done)

    def _decoded(self, at: At, teacher: Teacher | None) -> Any:
        m, kpis, leads = tf.shape(at.output)[0], len(self.frame.kpi_columns), self.taught_leads
        masks = self._decoder.masks(m) if teacher else None
        before = self._before(teacher, m) if teacher else None
        encoder = self.frame.encoder

        def step(index: Any, state: Any) -> Any:
            last, rows = state
            clock = encoder.clock(encoder.later(at.calendar, tf.cast(index + 1, tf.float32)))
            output, rows = self._decoder.step(tf.concat([last, clock], axis=1), rows, masks)
            raw = self.head.raw(output)
            own = tf.stop_gradient(self.head.point(raw, at.reference)[:, :, 0])
            own = tf.clip_by_value(own, -CLIP, CLIP)
            if before is not None:
                forced, target = tf.gather(before[0], index), tf.gather(before[1], index)
                own = tf.where(forced, target, own)
            return [raw], (own, rows)

        (raw,), _ = repeated(leads, step, (tf.zeros((m, kpis)), list(at.rows)), [self.head.shape])
        return self._by_lead(raw)

    def _before(self, teacher: Teacher, m: Any) -> tuple[Any, Any]:
        """Whether the truth is told after each lead, and that truth: (leads, m, kpis)."""
        target = tf.transpose(tf.clip_by_value(teacher.target, -CLIP, CLIP), (2, 0, 1))
        chance = keras.random.uniform((self.taught_leads, m, 1), seed=self._seeds)
        return (chance < self._forcing) & (tf.transpose(teacher.valid, (2, 0, 1)) > 0.5), target


class AutoRegressive(ManyToMany):
    """A one-step model, rolled out over all leads: its median is the next observation, other columns stand still.

    Scaler and hidden state advance in the roll-out and are thrown away after it.
    """

    head: PointHead

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        self.taught_leads = 1

    def _head_leads(self) -> int:
        return 1

    def _is_point(self) -> bool:
        return True

    def teach(self, at: At, teacher: Teacher) -> Any:
        """One step ahead."""
        return self.head.raw(at.output)

    def answer(self, at: At) -> Any:
        """The roll-out, told as the raw answers that a head of all leads would have given."""
        frame, m = self.frame, tf.shape(at.output)[0]
        if frame.output.horizon_steps == 1:
            return self.head.raw(at.output)

        def step(index: Any, state: Any) -> Any:
            natural, scaler, rows, last = state
            fed = self._fed(natural, at.encoded.ever, last)
            calendar = frame.encoder.later(at.calendar, tf.cast(index + 1, tf.float32))
            after = frame.encoder.scale(fed, calendar, scaler)
            encoded = frame.encoder.encode(fed, calendar, scaler, after)
            output, rows = frame.stack.step(encoded.inputs, rows)
            natural = self._natural(output, frame.reference(encoded))
            return [natural], (natural, after, rows, encoded.last)

        first = self._natural(at.output, at.reference)
        state = (first, at.scaler, list(at.rows), at.encoded.last)
        (rolled,), _ = repeated(frame.output.horizon_steps - 1, step, state, [(len(frame.kpi_columns),)])
        natural = tf.transpose(tf.concat([first[None], rolled], axis=0), (1, 2, 0))
        natural = tf.reshape(natural, (m, len(frame.kpi_columns), frame.output.horizon_steps))
        return self.head.raw_of((natural - at.reference.centre) / at.reference.scale, at.reference)

    def _natural(self, output: Any, reference: Reference) -> Any:
        """(m, kpis): the next value of every forecast KPI."""
        point = self.head.point(self.head.raw(output), reference)
        return (reference.centre + reference.scale * point)[:, :, 0]

    def _fed(self, natural: Any, ever: Any, last: Any) -> Any:
        """The columns of the step that is not there yet; one never seen stays missing."""
        columns = self.frame.kpi_columns
        forecast = np.isin(np.arange(self.frame.encoder.columns), columns)
        place = [columns.index(column) if column in columns else 0 for column in range(len(forecast))]
        return tf.where(ever, tf.where(forecast, tf.gather(natural, place, axis=1), last), np.nan)


STRUCTURES: dict[str, type[ManyToMany]] = {
    "many_to_many": ManyToMany,
    "many_to_one": ManyToOne,
    "one_to_one": ManyToMany,
    "one_to_many": OneToMany,
    "seq2seq": Seq2Seq,
    "autoregressive": AutoRegressive,
}
