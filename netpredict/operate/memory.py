"""Memory that a burst took and that the C library keeps for itself: given back to the system where it can be."""

from __future__ import annotations

import ctypes
import gc


def collect() -> None:
    """End what only cycles keep alive, then give free pages back.

    glibc keeps what lies below a block that still lives, so a daemon would keep the size of its largest burst; its
    ``malloc_trim(3)`` takes some 2 to 80 ms, without the interpreter's lock. Other C libraries have none.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


def _trim_of_glibc() -> ctypes._NamedFuncPointer | None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


_TRIM = _trim_of_glibc()
