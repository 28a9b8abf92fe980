"""From a checked config to the streams of a pipeline: plugins are loaded, options decoded, contracts compared."""

from __future__ import annotations

from netpredict.act.hook import Actuator, AdaptationHook
from netpredict.config import Config, StreamConfig
from netpredict.decide import BoundHook
from netpredict.errors import ConfigError
from netpredict.forecast.predictor import Predictor
from netpredict.ingest.decode import Decoder
from netpredict.plugins import load, options_of
from netpredict.stream import Stream
from netpredict.types import FeatureSpec, OutputSpec


def build_streams(config: Config) -> list[Stream]:
    """All configured streams with their decoders and hooks; ConfigError or PluginError names what is wrong."""
    if not config.streams:
        raise ConfigError("streams: none is configured, so there is nothing to do; see netpredict sample-config")
    return [build_stream(name, config) for name in config.streams]


def build_stream(name: str, config: Config) -> Stream:
    """One configured stream."""
    stream = config.streams[name]
    hooks = [bind_hook(hook, config, name) for hook, bound in config.hooks.items() if bound.stream == name]
    return Stream(name, stream, build_decoder(name, stream), hooks, fallback, config.store.observations)


def build_decoder(name: str, stream: StreamConfig) -> Decoder:
    """The decoder of a stream."""
    plugin = load("decoders", stream.decoder)
    options = options_of(plugin, stream.decoder_options, f"streams.{name}.decoder_options")
    decoder: Decoder = plugin.build(options, stream.schema, stream.series_by, stream.observed_columns())
    return decoder


def bind_hook(name: str, config: Config, stream_name: str) -> BoundHook:
    """A hook with its options; it must find what it needs in its stream."""
    bound, stream = config.hooks[name], config.streams[stream_name]
    plugin = load("hooks", bound.plugin)
    hook: AdaptationHook = plugin.build(options_of(plugin, bound.options, f"hooks.{name}.options"))
    kpis, columns = stream.kpi_columns(), stream.observed_columns()
    on_grid = f" (the columns of this grid are named like {kpis[0]})" if stream.grid else ""
    if missing := [kpi for kpi in hook.kpis_needed() if kpi not in kpis]:
        raise ConfigError(
            f"hooks.{name} needs forecasts of {', '.join(missing)}; add them to streams.{stream_name}.kpis{on_grid}"
        )
    if missing := [column for column in hook.columns_needed() if column not in columns]:
        raise ConfigError(
            f"hooks.{name} reads {', '.join(missing)}; add them to streams.{stream_name}.features{on_grid}"
        )
    if hook.steps_needed() > stream.horizon_steps:
        raise ConfigError(
            f"hooks.{name} looks {hook.steps_needed()} steps ahead; streams.{stream_name}.horizon_steps is"
            f" {stream.horizon_steps}"
        )
    return BoundHook(name, bound, hook, tuple(hook.state_spec()))


def build_actuators(config: Config) -> dict[str, Actuator]:
    """All configured actuators by name; nothing is connected yet."""
    return {name: _build_actuator(name, config) for name in config.actuators}


def _build_actuator(name: str, config: Config) -> Actuator:
    bound = config.actuators[name]
    plugin = load("actuators", bound.plugin)
    options = options_of(plugin, bound.options, f"actuators.{name}.options")
    actuator: Actuator = plugin.build(options, config.kafka) if plugin.needs_kafka else plugin.build(options)
    return actuator


def build_predictor(name: str, config: Config, features: FeatureSpec, output: OutputSpec) -> Predictor:
    """A configured predictor for a stream's features and output; without weights when it is trainable."""
    bound = config.predictors[name]
    plugin = load("predictors", bound.plugin)
    predictor: Predictor = plugin.build(
        options_of(plugin, bound.options, f"predictors.{name}.options"), features, output
    )
    return predictor


def fallback(plugin_name: str, features: FeatureSpec, output: OutputSpec) -> Predictor:
    """A rung of the ladder: a predictor plugin with its default options."""
    plugin = load("predictors", plugin_name)
    predictor: Predictor = plugin.build(plugin.options(), features, output)
    return predictor
