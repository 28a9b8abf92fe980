"""A noisy sine: the classical first lesson of recurrent networks, and a case whose best possible error is known.

Of each series ``s`` the value of step ``t`` is ``sin(2 pi t / period_steps + phase_s) + e``, with a phase of its own
and independent normal noise ``e`` of standard deviation ``noise``. Nobody can foresee the noise, so no predictor has a
mean absolute error below ``noise * sqrt(2 / pi)``; the last value errs by more the nearer the lead is to half a period.
"""

from dataclasses import dataclass

import numpy as np

from netpredict.errors import ConfigError
from netpredict.types import FloatArray


@dataclass(frozen=True, slots=True)
class SineConfig:
    """The same config gives the same values."""

    seed: int = 1
    period_steps: float = 40.0
    noise: float = 0.1
    series: int = 8
    steps: int = 2000

    def __post_init__(self) -> None:
        if self.period_steps < 2 or self.noise < 0 or self.series < 1 or self.steps < 1:
            raise ConfigError("a sine needs a period of at least 2 steps, noise of at least 0, a series and a step")

    @property
    def least_mae(self) -> float:
        """The mean absolute error of somebody who knows everything but the noise."""
        return float(self.noise * np.sqrt(2 / np.pi))


def noisy_sine(config: SineConfig) -> FloatArray:
    """The values, float32 (series, steps)."""
    random = np.random.default_rng(config.seed)
    phase = random.uniform(0, 2 * np.pi, (config.series, 1))
    angle = 2 * np.pi * np.arange(config.steps) / config.period_steps + phase
    return (np.sin(angle) + config.noise * random.standard_normal(angle.shape)).astype(np.float32)
