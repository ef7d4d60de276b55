"""Compiled loops, where numba is installed and there is enough to do.

The package works without: SciPy and NumPy give the same results. To load numba and the loops takes
half a second, and to compile them, once for each installation, some seconds.
"""

from functools import lru_cache
from types import ModuleType

# Loops are loaded once a process has so many pixels to work on: not for one small image.
WORTH_PIXELS = 2**22

_pixels = 0


def expect(pixels: int) -> None:
    """Count pixels that the local metric detects in: enough of them are worth loading the loops.

    The dense detector does not count: the loops would make it less than 1.2 times as fast.
    """
    global _pixels
    _pixels += pixels


def loops() -> ModuleType | None:
    """Return `napari_defocus.filters._numba_loops`, or None where NumPy has to do."""
    return _load() if _pixels >= WORTH_PIXELS else None


@lru_cache(maxsize=1)
def _load() -> ModuleType | None:
    # numba raises where it is not there, does not know this NumPy, or may write nowhere.
    try:
        from napari_defocus.filters import _numba_loops as compiled_loops
    except (ImportError, RuntimeError):
        return None
    return compiled_loops
