"""The settings of the recurrent predictors, and which of them go together; without TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from netpredict.errors import ConfigError
from netpredict.radio.classes import classes_of
from netpredict.radio.quantities import is_hindsight
from netpredict.types import OutputSpec

Count = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]
Spans = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=16)]
OddSteps = Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=999)], ...], msgspec.Meta(min_length=1, max_length=8)]

HalfLives = Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]

Activation = Literal[
    "tanh",
    "relu",
    "sigmoid",
    "hard_sigmoid",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "softsign",
    "exponential",
    "linear",
]
AT_ONCE = ("many_to_many", "many_to_one", "one_to_one")
Structure = Literal["many_to_many", "many_to_one", "one_to_one", "one_to_many", "seq2seq", "autoregressive"]


class RecurrentOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every recurrent predictor can be told; a plugin adds what is its layer's own."""

    units: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    layers: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    head_units: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    structure: Structure = "many_to_many"
    activation: Activation = "tanh"
    dropout: Rate = 0.0
    recurrent_dropout: Rate = 0.0
    l1: Weight = 0.0
    l2: Weight = 0.0
    layer_normalisation: bool = False
    inputs: Literal["moves", "season", "medians", "history", "levels"] = "moves"
    leave_out: tuple[str, ...] = ()
    scaler_steps: Count = 200
    season_forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.1
    median_steps: OddSteps = (15, 5, 31)
    mean_steps: Spans = (16, 60, 200, 1000)
    mean_half_lives: HalfLives = (2.0, 5.0, 15.0, 50.0, 200.0)
    move_half_lives: HalfLives = (30.0, 200.0)
    calendar: bool = True
    mixture: bool = False
    round_to_grain: bool = False
    optimiser: Literal["adam", "adamw", "rmsprop", "adagrad", "sgd"] = "adam"
    momentum: Rate = 0.0
    nesterov: bool = False
    weight_decay: Weight = 0.004
    learning_rate: Positive = 0.003
    schedule: Literal["constant", "cosine", "exponential", "plateau"] = "constant"
    warmup_epochs: Weight = 0.0
    final_rate_ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.1
    clip_norm: Weight = 1.0
    clip_value: Weight = 0.0
    loss: Literal["pinball", "mse", "mae", "bce", "cross_entropy"] = "pinball"
    lags: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    by_distance: bool = False
    teacher_forcing: Ratio = 1.0
    teacher_forcing_last: Ratio = 0.0
    train_epochs: Count = 20
    patience: Count = 4
    minibatch_size: Count = 64
    bptt_steps: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 1
    ensemble: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    adapt: Literal["none", "rls"] = "none"
    adapt_steps: Annotated[int, msgspec.Meta(ge=20, le=100_000)] = 100


_DEFAULTS = RecurrentOptions()


def check_options(options: RecurrentOptions, output: OutputSpec) -> None:
    """ConfigError where settings contradict each other or the output; before any graph is built."""
    if options.structure == "one_to_one" and output.horizon_steps != 1:
        raise ConfigError(
            f'structure = "one_to_one" answers one step ahead, not {output.horizon_steps}: set horizon_steps = 1 or '
            'take another structure ("autoregressive" rolls such a model out)'
        )
    is_point = options.loss in ("mse", "mae", "bce")
    if (is_point or options.structure in ("seq2seq", "autoregressive")) and 0.5 not in output.levels:
        what = f'loss = "{options.loss}"' if is_point else f'structure = "{options.structure}"'
        raise ConfigError(f"{what} needs the level 0.5 among {list(output.levels)}: the point stands there")
    if (past := [kpi for kpi in output.kpis if is_hindsight(kpi)]) and options.loss not in ("mse", "bce"):
        raise ConfigError(
            f'{", ".join(past)} are forecast as a mean, which loss = "mse" or "bce" teaches, not "{options.loss}"'
        )
    if past and options.adapt != "none":
        raise ConfigError(
            f'adapt = "{options.adapt}" corrects forecasts by what was observed, which of {past[0]} is a rule of thumb:'
            ' set adapt = "none"'
        )
    if options.momentum and options.optimiser not in ("sgd", "rmsprop"):
        raise ConfigError(f'momentum is for the optimisers "sgd" and "rmsprop", not "{options.optimiser}"')
    if options.nesterov and (options.optimiser != "sgd" or not options.momentum):
        raise ConfigError('nesterov needs optimiser = "sgd" and a momentum above 0')
    if options.weight_decay != _DEFAULTS.weight_decay and options.optimiser != "adamw":
        raise ConfigError(f'weight_decay is for the optimiser "adamw", not "{options.optimiser}"; l2 is for all')
    if options.warmup_epochs >= options.train_epochs:
        left = f"leaves nothing of {options.train_epochs} train_epochs"
        raise ConfigError(f"warmup_epochs = {options.warmup_epochs:g} {left}")
    if options.inputs not in ("moves", "history") and options.loss == "cross_entropy":
        raise ConfigError(f'inputs = "{options.inputs}" is not for loss = "cross_entropy": use "moves" or "history"')
    if even := [steps for steps in options.median_steps if steps % 2 == 0]:
        raise ConfigError(f"median_steps are odd numbers of steps, not {even}")
    _check_teacher(options)
    _check_history(options)
    _check_classes(options, output)


def _check_teacher(options: RecurrentOptions) -> None:
    given = (options.teacher_forcing, options.teacher_forcing_last)
    if options.structure != "seq2seq" and given != (_DEFAULTS.teacher_forcing, _DEFAULTS.teacher_forcing_last):
        raise ConfigError(f'teacher_forcing is for structure = "seq2seq", not "{options.structure}"')
    if given[1] > given[0]:
        raise ConfigError(f"teacher_forcing falls, from {given[0]:g} to teacher_forcing_last = {given[1]:g} at most")


def _check_history(options: RecurrentOptions) -> None:
    if options.head_units and options.structure not in AT_ONCE:
        raise ConfigError(f'head_units is for an answer of all leads at once, not structure = "{options.structure}"')
    if (options.mixture or options.round_to_grain) and options.inputs != "history":
        raise ConfigError('mixture and round_to_grain need inputs = "history"')
    if options.mixture and (options.loss != "pinball" or options.structure not in AT_ONCE):
        raise ConfigError('mixture needs loss = "pinball" and an answer of all leads at once')
    if not options.calendar and options.inputs not in ("moves", "history", "levels"):
        raise ConfigError(f'calendar = false is not for inputs = "{options.inputs}"')


def _check_classes(options: RecurrentOptions, output: OutputSpec) -> None:
    if options.loss != "cross_entropy":
        if options.lags != _DEFAULTS.lags and options.inputs != "history":
            raise ConfigError(f'lags is for inputs = "history" and loss = "cross_entropy", not "{options.loss}"')
        if options.by_distance:
            raise ConfigError(f'by_distance is for loss = "cross_entropy", not "{options.loss}"')
        return
    if options.head_units:
        raise ConfigError('loss = "cross_entropy" brings its own head: leave head_units out')
    if options.ensemble > 1:
        raise ConfigError('ensemble averages quantiles, loss = "cross_entropy" forecasts classes: set ensemble = 1')
    if options.structure not in AT_ONCE:
        raise ConfigError(f'loss = "cross_entropy" needs structure = "many_to_many", not "{options.structure}"')
    for kpi in output.kpis:
        try:
            classes_of(kpi)
        except ConfigError as error:
            hint = "forecast it in a stream of its own, and list it under features here"
            raise ConfigError(f'loss = "cross_entropy": {error}; {hint}') from error
