import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.traces.sine import SineConfig, noisy_sine


def test_the_same_config_gives_the_same_values_and_another_seed_others():
    one, two = noisy_sine(SineConfig()), noisy_sine(SineConfig())
    assert one.shape == (8, 2000)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, noisy_sine(SineConfig(seed=2)))


def test_without_noise_it_repeats_after_a_period():
    values = noisy_sine(SineConfig(noise=0.0, period_steps=25))
    np.testing.assert_allclose(values[:, 25:], values[:, :-25], atol=1e-5)
    assert np.abs(values).max() <= 1.0


def test_nobody_is_below_the_least_error_not_even_who_knows_the_sine():
    config = SineConfig(noise=0.2, steps=20_000)
    off = noisy_sine(config) - noisy_sine(SineConfig(noise=0.0, steps=20_000))
    assert np.abs(off).mean() == pytest.approx(config.least_mae, rel=0.01)


@pytest.mark.parametrize("changes", [{"period_steps": 1.0}, {"noise": -0.1}, {"series": 0}, {"steps": 0}])
def test_a_sine_that_is_none_is_refused(changes: dict):
    with pytest.raises(ConfigError, match="period of at least 2"):
        SineConfig(**changes)
