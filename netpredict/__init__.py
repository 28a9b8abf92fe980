"""Stateful recurrent forecasts of radio telemetry, stored exactly once, turned into safe adaptations."""

__version__ = "0.1.0"
