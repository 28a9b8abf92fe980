import numpy as np

from netpredict.forecast.series import FREE, SeriesTable
from netpredict.types import NO_SLOT, StateArray

SPECS = {"a": StateArray((2,), fill=-1.0), "b": StateArray((), "uint16"), "c": StateArray((2, 3), "int64", 7)}


def table(series=0, capacity=4):
    made = SeriesTable(capacity)
    made.add_columns(SPECS)
    for number in range(series):
        made.allocate(number % 2, f"key-{number}", 100 + number)
    return made


def snapshot(made, row):
    named = {name: made.column(name)[row].tolist() for name in SPECS}
    fixed = [
        getattr(made, name)[row].item() for name in ("lane", "last_slot", "route", "scored", "touched", "series_id")
    ]
    return named, fixed, made.keys[row]


def dirty(made, row):
    for name in SPECS:
        made.column(name)[row] = 3
    made.last_slot[row], made.route[row], made.scored[row], made.touched[row] = 5, 2, 9, True


def test_it_grows_by_doubling_and_keeps_what_it_holds():
    made = table(4)
    dirty(made, 3)
    before = [snapshot(made, row) for row in range(4)]
    for number in range(4, 100):
        made.allocate(0, f"key-{number}", number)
    assert (len(made), made.capacity) == (100, 128)
    assert [snapshot(made, row) for row in range(4)] == before
    assert len(made.keys) == len(made.lane) == len(made.column("c")) == 128
    assert made.column("a")[50].tolist() == [-1.0, -1.0]


def test_a_row_that_is_used_again_bears_no_trace():
    made = table(2)
    fresh = snapshot(table(3), 2)
    row = made.allocate(0, "key-2", 102)
    dirty(made, row)
    made.free(np.array([row]))
    assert made.lane[row] == FREE
    assert made.allocate(0, "key-2", 102) == row
    assert snapshot(made, row) == fresh


def test_rows_of_a_lane():
    made = table(6)
    made.free(np.array([2]))
    assert made.rows_of(0).tolist() == [0, 4]
    assert made.rows_of(1).tolist() == [1, 3, 5]
    assert len(made) == 5


def test_a_reset_touches_its_rows_and_columns_only():
    made = table(3)
    for row in range(3):
        dirty(made, row)
    made.reset(np.array([1]), ["a"])
    assert made.column("a").tolist()[:3] == [[3, 3], [-1, -1], [3, 3]]
    assert made.column("b").tolist()[:3] == [3, 3, 3]
    made.reset(np.array([1]))
    assert made.column("b").tolist()[:3] == [3, 0, 3]


def test_packed_states_come_back_bit_for_bit():
    made, rng = table(5), np.random.default_rng(0)
    made.column("a")[:5] = rng.normal(size=(5, 2))
    made.column("a")[2] = [np.float32(1e-45), -0.0]
    made.column("b")[:5] = rng.integers(0, 65_535, 5)
    packing, rows = made.packing(SPECS), np.array([4, 0, 2])
    blob = made.pack(rows, packing)
    assert blob.shape == (3, packing.dtype.itemsize)
    other = table(9)
    other.unpack(packing.layout, np.array([8, 7, 6]), blob.tobytes())
    for name in SPECS:
        assert other.column(name)[[8, 7, 6]].tobytes() == made.column(name)[rows].tobytes()
    assert other.column("a")[5].tolist() == [-1.0, -1.0]


def test_a_layout_that_changed_keeps_what_still_fits():
    made = table(1)
    dirty(made, 0)
    packing = made.packing(SPECS)
    blob = made.pack(np.array([0]), packing).tobytes()
    other = SeriesTable(4)
    other.add_columns({"a": SPECS["a"], "b": StateArray((), "int32", 5), "c": StateArray((3, 2), "int64", 7)})
    other.add_columns({"d": StateArray((), fill=0.5)})
    other.unpack(packing.layout, np.array([0]), blob)
    assert other.column("a")[0].tolist() == [3, 3]
    assert other.column("b")[0] == 5  # another dtype
    assert (other.column("c")[0] == 7).all()  # another shape
    assert other.column("d")[0] == 0.5  # new


def test_some_columns_can_be_packed_alone_and_none_too():
    made = table(2)
    assert made.pack(np.array([0, 1]), made.packing(["b"])).shape == (2, 2)
    assert made.pack(np.array([0, 1]), made.packing([])).shape == (2, 0)


def test_a_column_that_is_there_keeps_its_values_and_a_dropped_one_is_gone():
    made = table(1)
    dirty(made, 0)
    made.add_columns(SPECS)
    assert made.column("b")[0] == 3
    made.drop_columns(["b", "unknown"])
    made.add_columns(SPECS)
    assert made.column("b")[0] == 0


def test_gather_copies_and_scatter_writes():
    made = table(3)
    got = made.gather("", ["a"], np.array([1, 2]))
    got["a"][:] = 8
    assert made.column("a")[1].tolist() == [-1, -1]
    made.scatter("", np.array([2, 0]), {"a": np.array([[1, 2], [3, 4]], np.float32)})
    assert made.column("a")[:3].tolist() == [[3, 4], [-1, -1], [1, 2]]


def test_a_fresh_row_has_seen_nothing():
    assert (table(1).last_slot == NO_SLOT).all()
