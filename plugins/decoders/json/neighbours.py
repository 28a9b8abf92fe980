"""Columns of a row of a measurement report that are measured on other radio cells of the same report.

``nbr1_*`` and ``nbr2_*`` are the strongest other radio cell and the second strongest, by RSRP; ``onsite_*`` the
strongest other one of the row's own site, ``offsite_*`` the strongest of another site.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.types import BoolArray, FloatArray, IntArray

RANKS = {"nbr1": 1, "nbr2": 2}
BY_SITE = ("onsite", "offsite")
FIELDS = {f"nbr1_{kpi}": kpi for kpi in ("rsrp_dbm", "rsrq_db", "sinr_db")}
FIELDS |= {f"{which}_rsrp_dbm": "rsrp_dbm" for which in ("nbr2", *BY_SITE)}
"""The field of a neighbour that such a column is."""
CELLS_REMEMBERED, LONGEST_REMEMBERED = 100_000, 200

NO_ROW = -1


def site_function(pattern: str) -> Callable[[str], str]:
    """Gives the site of a radio cell: the first group of ``pattern`` in its id, else the whole id. ConfigError."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"decoder_options.site_pattern: {error}") from error
    if compiled.groups != 1:
        raise ConfigError(f"decoder_options.site_pattern has {compiled.groups} groups: the one group is the site")

    @functools.lru_cache(CELLS_REMEMBERED)
    def found_in(radio_cell_id: str) -> str:
        found = compiled.fullmatch(radio_cell_id)
        return found.group(1) or radio_cell_id if found else radio_cell_id

    def site_of(radio_cell_id: str) -> str:
        return found_in(radio_cell_id) if len(radio_cell_id) <= LONGEST_REMEMBERED else radio_cell_id

    return site_of


class Others:
    """The other rows of the reports of a batch: ``counts`` rows are of each report, ``level`` (rows,) orders them."""

    def __init__(self, counts: IntArray, level: FloatArray, sites: Sequence[str] | None) -> None:
        self._report = np.repeat(np.arange(len(counts)), counts)
        self._level = np.where(np.isnan(level), -np.inf, level)
        self._sites = None if sites is None else np.unique(np.asarray(sites), return_inverse=True)[1]
        self._best = self._first(self._report, self._level)

    def highest(self) -> FloatArray:
        """(rows,): the highest level of a row's report, NaN where it measured none."""
        found: FloatArray = np.where(np.isfinite(self._level[self._best]), self._level[self._best], np.nan)
        return found.astype(np.float32)

    def place(self, which: str) -> IntArray:
        """(rows,): the row that a column of this name is measured on, ``NO_ROW`` where there is none."""
        if which in RANKS:
            return self._nth(self._report, self._level, RANKS[which])
        assert self._sites is not None
        if which == "onsite":
            group = np.unique(np.stack([self._report, self._sites]), axis=1, return_inverse=True)[1].ravel()
            return self._nth(group, self._level, 1)
        of_best_site = self._sites == self._sites[self._best]
        elsewhere = self._first(self._report, np.where(of_best_site, -np.inf, self._level))
        found = np.where(of_best_site, elsewhere, self._best)
        return self._known(found, self._sites[found] != self._sites)

    def _nth(self, group: IntArray, level: FloatArray, rank: int) -> IntArray:
        """For each row the ``rank``-th strongest other row of its group."""
        order = np.lexsort((np.arange(len(level)), -level, group))
        sizes = np.bincount(group)
        starts = (np.cumsum(sizes) - sizes)[group]
        own = np.empty(len(level), np.int64)
        own[order] = np.arange(len(level))
        nth = rank - 1 + (own - starts <= rank - 1)
        return self._known(order[np.minimum(starts + nth, len(order) - 1)], nth < sizes[group])

    def _known(self, found: npt.NDArray[np.int64], there: BoolArray) -> IntArray:
        return np.where(there & np.isfinite(self._level[found]), found, NO_ROW)

    @staticmethod
    def _first(group: IntArray, level: FloatArray) -> IntArray:
        """For each row the strongest row of its group, itself among them."""
        order = np.lexsort((np.arange(len(level)), -level, group))
        sizes = np.bincount(group)
        first: IntArray = order[(np.cumsum(sizes) - sizes)[group]]
        return first
