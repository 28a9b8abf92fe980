from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netpredict.store import encode
from netpredict.store.commit import ForecastLayout
from netpredict.types import MISSING_TICKS

TICKS = st.one_of(st.integers(-1500, 1500), st.just(MISSING_TICKS), st.integers(MISSING_TICKS, 2**31 - 1))


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=TICKS))
def test_ticks_survive_their_text(ticks: np.ndarray) -> None:
    texts = encode.ticks_texts(ticks)
    assert (encode.ticks_rows(texts, ticks.shape[1]) == ticks).all()
    expected = [[None if value == MISSING_TICKS else value for value in row] for row in ticks.tolist()]
    assert [json.loads(text) for text in texts] == expected
    assert texts == [json.dumps(row, separators=(",", ":")) for row in expected]


def test_nothing_but_missing_ticks() -> None:
    ticks = np.full((3, 2), MISSING_TICKS, dtype=np.int32)
    assert encode.ticks_texts(ticks) == ["[null,null]"] * 3
    assert encode.ticks_texts(ticks[:0]) == []
    assert encode.ticks_rows([], 5).shape == (0, 5)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_sources_survive_their_letters(sources: np.ndarray) -> None:
    texts = encode.sources_texts(sources)
    assert (encode.sources_rows(texts, sources.shape[1]) == sources).all()


def test_layout_ids_tell_layouts_apart_and_never_change() -> None:
    layout = ForecastLayout("traffic", ("dl",), (1,), (0.5,), 12, 10)
    assert encode.forecast_layout_id(layout) == encode.forecast_layout_id(
        ForecastLayout("traffic", ("dl",), (1,), (0.5,), 12, 10)
    )
    assert encode.forecast_layout_id(layout) != encode.forecast_layout_id(
        ForecastLayout("traffic", ("dl",), (2,), (0.5,), 12, 10)
    )
    assert encode.layout_id("") == 250348346448124
