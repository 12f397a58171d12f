"""The colour of the object alone where its edge is soft, without the background that shines through.

Multi-level foreground estimation (Germer, Uelwer, Conrad and Harmeling, 2020, arXiv 2006.14970) as pymatting has it.
Needs the package pymatting (`sa2va_host.extras.check_matting`), whose first import takes up to a minute, since numba
compiles it then.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import ConfigError
from sa2va_host.extras import check_matting

from .masks import Probability

_ONE_AT_A_TIME = threading.Lock()
"""numba's simplest threads, which are what it has where neither TBB nor OpenMP is, end the process when two threads of
ours use them at once.
"""


def decontaminate(colours: NDArray[Any], alpha: Probability) -> NDArray[np.float32]:
    """float32 `[height, width, 3]`: the colours, replaced by the object's own where alpha is between 0 and 1.

    ``alpha`` is `[height, width]`. ``colours`` are straight (not multiplied by alpha), from 0 to any maximum: encoded
    values, or light. NaN and infinity stay, and count as 0 for their neighbours. Raises `ConfigError` without
    pymatting.
    """
    check_matting()
    result = colours.astype(np.float32)
    soft = (alpha > 0) & (alpha < 1)
    finite = np.isfinite(result)
    known = np.where(finite, np.maximum(result, 0), np.float32(0))
    brightest = float(known.max(initial=0.0))
    if not soft.any() or brightest == 0 or max(alpha.shape) < 2:
        return result
    # The estimate is limited to 0..1, light is not.
    estimate = _estimate(np.divide(known, brightest, dtype=np.float32), alpha.astype(np.float32))
    inside = soft[:, :, None] & finite
    np.copyto(result, estimate * np.float32(brightest), where=inside)
    return result


def _estimate(colours: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    with _ONE_AT_A_TIME:
        try:
            from pymatting import estimate_foreground_ml
        except Exception as error:  # a numba that does not fit, or that finds no folder for what it compiles
            raise ConfigError(
                f"pymatting cannot be used here: {error}.",
                advice="Where it finds no folder to cache in, set NUMBA_CACHE_DIR to one.",
            ) from error
        return np.asarray(estimate_foreground_ml(colours, alpha), np.float32)
