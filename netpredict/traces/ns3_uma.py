"""ns3-uma: RSRP of every radio cell to every moving UE in a macro grid, made with ns-3 (data README, its own chapter).

The arrays are taken whole, for ``netpredict evaluate handover``; ``ns3_uma_reports`` makes a stream of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netpredict.errors import DataError
from netpredict.traces.archive import readable
from netpredict.types import AnyArray, FloatArray

NAME = "ns3-uma"
"""Of its folder too."""
SCENES: tuple[str, ...] = ("v003", "v030", "v060", "v120", "los_v060")
LINE_OF_SIGHT: tuple[str, ...] = ("los_v060",)
"""Scenes in which sites come into sight and go out of it."""
RADIO_CELLS = 57
STEP_MS = 100
PERIOD_MS = 200
"""Between two L1 measurements."""
NOISE_DB = 1.0
NOISE_SEED = 100
_SLOTS = 12
_SAMPLES = 5
_SHARES = (0.36, 0.48, 0.16)
_NEEDED = ("drsrp", "drest", "cell", "speed_kmh", "dt_s", "dxy", "site_xy")


@dataclass(frozen=True, slots=True)
class Scene:
    """One file. ``rsrp_dbm`` (UEs, steps of ``STEP_MS``, radio cells), dBm per resource element, without noise."""

    name: str
    seed: int
    speed_kmh: float
    rsrp_dbm: FloatArray

    def first(self, ues: int | None) -> Scene:
        """The same with fewer UEs."""
        return Scene(self.name, self.seed, self.speed_kmh, self.rsrp_dbm[:ues])


class Places(NamedTuple):
    """Where the UEs were (UEs, steps, 2), and the sites (sites, 2), m; radio cell c is of site c // 3."""

    ue_xy_m: FloatArray
    site_xy_m: FloatArray

    def first(self, ues: int | None) -> Places:
        """The same with fewer UEs."""
        return Places(self.ue_xy_m[:ues], self.site_xy_m)


def read(folder: Path, name: str, seed: int) -> Scene:
    """Unpack ``{name}_s{seed}.npz``; DataError when it is not there or not such a file."""
    return with_places(folder, name, seed)[0]


def with_places(folder: Path, name: str, seed: int) -> tuple[Scene, Places]:
    """The same with the places of UEs and sites."""
    path = folder / f"{name}_s{seed}.npz"
    with readable(path):
        try:
            file = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path} is no npz file: take the published one") from error
        with file:
            return _scene(path, name, seed, file)


def _scene(path: Path, name: str, seed: int, file: Mapping[str, AnyArray]) -> tuple[Scene, Places]:
    missing = [key for key in _NEEDED if key not in file]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: take the published file")
    if not np.isclose(float(file["dt_s"]), STEP_MS / 1000):
        raise DataError(f"{path} has steps of {float(file['dt_s'])} s, not {STEP_MS} ms: take the published file")
    scene = Scene(name, seed, float(file["speed_kmh"]), unpack(file["cell"], file["drsrp"], file["drest"]))
    ue_xy_m = np.cumsum(file["dxy"], axis=1, dtype=np.int64).astype(np.float32) / np.float32(10)
    return scene, Places(ue_xy_m, np.asarray(file["site_xy"], np.float32))


def unpack(cell: AnyArray, drsrp: AnyArray, drest: AnyArray) -> FloatArray:
    """Dense RSRP in dBm: those outside the twelve strongest share the power of the rest, so that sums are right."""
    rsrp, rest = (np.cumsum(each, axis=1, dtype="i2").astype(np.float32) / np.float32(10) for each in (drsrp, drest))
    share = rest - np.float32(10 * np.log10(RADIO_CELLS - _SLOTS))
    dense: FloatArray = np.repeat(share[..., None], RADIO_CELLS, -1)
    np.put_along_axis(dense, cell.astype(np.int64), rsrp, -1)
    return dense


def strongest_only(rsrp_dbm: FloatArray) -> FloatArray:
    """What ``unpack`` would give of levels that were recorded: in tenths, the twelve strongest at every step."""
    least = np.partition(rsrp_dbm, -_SLOTS, axis=-1)[..., -_SLOTS, None]
    rest_mw = np.where(rsrp_dbm < least, np.exp(rsrp_dbm * np.float32(np.log(10) / 10)), 0).sum(axis=-1, keepdims=True)
    rest_dbm = 10 * np.log10(rest_mw / np.float32(RADIO_CELLS - _SLOTS))
    kept = np.where(rsrp_dbm < least, rest_dbm, rsrp_dbm).astype(np.float32)
    return np.round(kept, 1)


def measure(scene: Scene, sigma_db: float = NOISE_DB, noise_seed: int = NOISE_SEED) -> FloatArray:
    """L1 measurements (UEs, periods, radio cells) in dBm, one every ``PERIOD_MS``.

    Each is the mean of five samples 40 ms apart, linear in dB between the steps, each sample with noise N(0, sigma).
    The generator is seeded by ``noise_seed`` + the seed of the scene, as in the data README.
    """
    step = 2 * np.arange((scene.rsrp_dbm.shape[1] - 1) // 2 + 1)
    mean = np.sum([share * scene.rsrp_dbm[:, np.maximum(step - ago, 0)] for ago, share in enumerate(_SHARES)], axis=0)
    noise = np.random.default_rng(noise_seed + scene.seed).normal(0, sigma_db / _SAMPLES**0.5, mean.shape)
    measured: FloatArray = (mean + noise).astype(np.float32)
    return measured
