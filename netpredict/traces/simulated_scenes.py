"""Scenes like those of ``ns3_uma``, of ``netpredict simulate``: its mobility, propagation and shadowing.

The same network (57 radio cells, sites 500 m apart, UEs that stay in a disc of 900 m) and as many UEs for as long, all
of one speed. There is no scene with line of sight: the simulator has none. Made anew by each call, of the seed alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from netpredict.traces.fleet import Fleet
from netpredict.traces.layout import hexagonal
from netpredict.traces.ns3_uma import RADIO_CELLS, STEP_MS, Places, Scene

NAME = "simulate"
SPEEDS_KMH = {"v003": 3.0, "v030": 30.0, "v060": 60.0, "v120": 120.0}
SCENES: tuple[str, ...] = tuple(SPEEDS_KMH)
LINE_OF_SIGHT: tuple[str, ...] = ()
INTER_SITE_M, RADIUS_M = 500.0, 900.0
UES, STEPS = 20, 4000


def read(_folder: Path, name: str, seed: int) -> Scene:
    """Simulate one scene; there is no file."""
    return with_places(_folder, name, seed)[0]


def with_places(_folder: Path, name: str, seed: int) -> tuple[Scene, Places]:
    """A scene and where its UEs were."""
    speed_kmh = SPEEDS_KMH[name]
    layout = replace(hexagonal(RADIO_CELLS, INTER_SITE_M), radius_m=RADIUS_M)
    fleet = Fleet(np.random.default_rng([seed, round(speed_kmh)]), layout, UES, speeds_kmh=(speed_kmh,))
    rsrp_dbm = np.empty((UES, STEPS, RADIO_CELLS), np.float32)
    xy_m = np.empty((UES, STEPS, 2), np.float32)
    for step in range(STEPS):
        fleet.move(STEP_MS / 1000)
        _, rsrp_dbm[:, step] = fleet.levels()
        xy_m[:, step] = fleet.xy_m
    return Scene(name, seed, speed_kmh, rsrp_dbm), Places(xy_m, layout.site_xy_m)
