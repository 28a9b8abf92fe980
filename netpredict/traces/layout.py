"""Where the radio cells of the simulator stand: sites on a hexagonal grid, three sectors each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SECTORS = 3
BORESIGHT_RAD = np.deg2rad([30.0, 150.0, 270.0]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Layout:
    """``site_xy_m`` [sites, 2]; radio cell c is sector c % 3 of site c // 3; ``radius_m`` encloses the covered disc."""

    site_xy_m: NDArray[np.float32]
    radio_cells: int
    radius_m: float

    def radio_cell_ids(self) -> list[str]:
        """Identities by index: gNB number and sector, fixed width, so that they sort by index."""
        return [f"sim-{radio_cell // SECTORS:05d}-{radio_cell % SECTORS}" for radio_cell in range(self.radio_cells)]


def hexagonal(radio_cells: int, inter_site_m: float) -> Layout:
    """Fill a hexagonal grid from the middle outwards until there are sites for ``radio_cells``."""
    sites = -(-radio_cells // SECTORS)
    rings = int(np.ceil(np.sqrt(sites / 3))) + 1
    q, r = (axis.ravel() for axis in np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1)))
    xy_m = inter_site_m * np.stack([q + r / 2, r * np.sqrt(3) / 2], axis=1)
    distance_m = np.hypot(xy_m[:, 0], xy_m[:, 1])
    nearest = np.lexsort((np.arctan2(xy_m[:, 1], xy_m[:, 0]), np.round(distance_m, 3)))[:sites]
    radius_m = float(distance_m[nearest].max()) + inter_site_m / 2
    return Layout(xy_m[nearest].astype(np.float32), radio_cells, radius_m)
