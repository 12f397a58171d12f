"""What may be asked of `sa2va_host.masks.refine`: how each probability map is made better, how several become one.

Words and numbers alone, so that a front end can check them without NumPy.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from sa2va_host.errors import InvalidInput

Combination: TypeAlias = Literal["union", "intersection", "difference"]

LARGEST_RADIUS = 256
"""Pixels; the work of growing goes with the square of the radius."""
SMALLEST_EPSILON = 1e-6
"""What He et al. use for their finest mattes, and what float32 still tells from nothing."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """What is done to each probability map, in this order; the defaults do nothing. Lengths are pixels of the input.

    A part is a piece of the mask (8-connected), a hole a piece of the rest (4-connected) that does not reach the
    picture's border; both are found at the threshold. Beyond its borders a picture is taken to go on as it ends, so
    an object that is cut off there is not shrunk from there. Raises `InvalidInput` for impossible values.
    """

    opening: int = 0
    """Radius of a disc: what it does not fit into goes (specks, hairs, thin bridges)."""
    closing: int = 0
    """Radius of a disc: gaps that it does not fit into are closed."""
    fill_holes: bool = False
    """Holes become 1."""
    smallest_area: int = 0
    """Parts with fewer pixels become 0."""
    largest_only: bool = False
    """All parts but the largest become 0; of several that are as large, one stays."""
    guide_radius: int = 0
    """Radius of the guided filter's window, in which edges come to follow the picture; 0 leaves them."""
    guide_epsilon: float = 1e-4
    """Variance of colours (0..1) that the guided filter takes for noise: 1e-4 is 2.5 grey levels of 255."""
    grow: int = 0
    """Radius of a disc by which the object grows; negative shrinks it."""
    smooth: float = 0.0
    """Standard deviation of the Gaussian that blurs the map, which rounds outlines and softens edges."""
    invert: bool = False
    """Everything but the object."""

    def __post_init__(self) -> None:
        for name in ("opening", "closing", "guide_radius"):
            _check(name, getattr(self, name), (0, LARGEST_RADIUS), whole=True)
        _check("grow", self.grow, (-LARGEST_RADIUS, LARGEST_RADIUS), whole=True)
        _check("smallest_area", self.smallest_area, (0, math.inf), whole=True)
        _check("smooth", self.smooth, (0, LARGEST_RADIUS))
        _check("guide_epsilon", self.guide_epsilon, (SMALLEST_EPSILON, 1))

    def check_packages(self, *, tried: bool = True) -> None:
        """Raises `ConfigError` where OpenCV is missing and something of this needs it, which all but `invert` does.
        Front ends ask before the model is asked, with ``tried`` off: then OpenCV is looked up and not imported.
        """
        words = (
            ("opening", self.opening),
            ("closing", self.closing),
            ("filling holes", self.fill_holes),
            ("a smallest area", self.smallest_area > 1),
            ("the largest part alone", self.largest_only),
            ("the guided filter", self.guide_radius),
            ("growing or shrinking", self.grow),
            ("smoothing", self.smooth),
        )
        wanted = [word for word, is_wanted in words if is_wanted]
        if wanted:
            from sa2va_host.extras import check_opencv

            check_opencv(f"Refining masks ({', '.join(wanted)})", tried=tried)


def check_combination(how: str) -> None:
    """Raises `InvalidInput` for a word that `combine` does not know."""
    if how not in get_args(Combination):
        raise InvalidInput(f"There is no combination {how!r}. Use {', '.join(get_args(Combination))}.")


def _check(name: str, value: object, bounds: tuple[float, float], *, whole: bool = False) -> None:
    kinds = numbers.Integral if whole else numbers.Real
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= float(value) <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"from {low:g} to {high:g}" if high < math.inf else f"of {low:g} or more"
        raise InvalidInput(f"{name} is {value!r}. Use {kind} {limits}.")
