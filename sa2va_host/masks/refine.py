"""Post-processing: the probability map of one object made better, and the maps of several made one.

Called by `sa2va_host.results`, `sa2va_host.output.saving` and front ends. Knows nothing of files, workers or models.
Works on probabilities, so that soft edges stay soft; one map at a time, so that a video passes through frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput

from .masks import threshold_logit
from .refinement import check_combination

if TYPE_CHECKING:
    from sa2va_host.media import Picture

    from .masks import Mask, Probability
    from .refinement import Combination, Refinement


def refine(
    probability: Probability, refinement: Refinement, threshold: float, picture: Picture | None = None
) -> Probability:
    """One map `[height, width]`, float32 0..1, refined; where nothing is to be done it is the same array.

    ``threshold`` says what parts and holes are: above it is inside. The soft surroundings of a part or hole go with
    it, as far as no other is nearer. ``picture`` `[height, width, 3]`, uint8 RGB, is needed by the guided filter
    alone. Raises `InvalidInput` if it is missing or of another size, and unless `0 <= threshold <= 1`; `ConfigError`
    where the refinement needs OpenCV and it is missing.
    """
    if probability.ndim != 2 or probability.dtype != np.float32:
        raise InvalidInput(
            f"A probability map is float32 [height, width], not {probability.dtype} {list(probability.shape)}."
        )
    threshold_logit(threshold)
    bound = np.float32(threshold)
    refinement.check_packages()
    probability = _morph(probability, "MORPH_OPEN", refinement.opening)
    probability = _morph(probability, "MORPH_CLOSE", refinement.closing)
    if refinement.fill_holes:
        probability = _fill_holes(probability, bound)
    if refinement.smallest_area > 1 or refinement.largest_only:
        probability = _drop_parts(probability, bound, refinement.smallest_area, refinement.largest_only)
    if refinement.guide_radius:
        from .guided_filter import guided_filter

        guide = _checked_guide(picture, probability)
        probability = guided_filter(probability, guide, refinement.guide_radius, refinement.guide_epsilon)
    growth = "MORPH_ERODE" if refinement.grow < 0 else "MORPH_DILATE"
    probability = _morph(probability, growth, abs(refinement.grow))
    if refinement.smooth:
        probability = _blur(probability, refinement.smooth)
    if refinement.invert:
        probability = np.float32(1) - probability
    return probability


def to_mask(refined: Probability, refinement: Refinement, threshold: float) -> Mask:
    """The mask of what `refine` returned, bool and of its shape: where it is above the threshold.

    Inverted, it is the complement of that mask at every threshold: the threshold belongs to the object.
    """
    if refinement.invert:
        return np.asarray(refined >= np.float32(1) - np.float32(threshold))
    return np.asarray(refined > np.float32(threshold))


def combine(stack: NDArray[Any], how: Combination) -> NDArray[Any]:
    """The masks (bool) or probabilities (float32) of several objects as one: `[objects, ...]` becomes `[...]`.

    ``union`` is where any object is, ``intersection`` where all are, ``difference`` the first without the others.
    Probabilities are combined as fuzzy sets (L. Zadeh, 1965): maximum, minimum and `1 - p`, so for union and
    intersection it is the same at every threshold whether it comes before or after, for difference at 0.5. Without
    objects there is nothing, whichever way. Raises `InvalidInput` for another word.
    """
    check_combination(how)
    if len(stack) == 0:
        return np.zeros(stack.shape[1:], stack.dtype)
    if how == "union":
        return np.asarray(np.maximum.reduce(stack))
    if how == "intersection":
        return np.asarray(np.minimum.reduce(stack))
    others = np.maximum.reduce(stack[1:], initial=stack.dtype.type(0))
    without = np.logical_not(others) if stack.dtype == np.bool_ else 1 - others
    return np.asarray(np.minimum(stack[0], without))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The connected parts of a mask `[height, width]`, numbered from 0."""

    nearest: NDArray[np.int32]
    """`[height, width]`: for each pixel of the picture the part that it is in or nearest to."""
    boxes: NDArray[np.int32]
    """`[parts, 4]`: left, top, width, height."""
    areas: NDArray[np.int32]
    """`[parts]`, pixels."""


def _parts(mask: Mask, connectivity: Literal[4, 8]) -> _Parts | None:
    """None where the mask is empty."""
    import cv2

    if not mask.any():
        return None
    inside = mask.astype(np.uint8)
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=connectivity)
    # Each pixel is given the label of the nearest pixel of the mask, and through that the number of its part.
    _, pixels = cv2.distanceTransformWithLabels(
        np.uint8(1) - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    part_of = np.zeros(int(pixels.max()) + 1, dtype=np.int32)
    part_of[pixels[mask]] = numbers[mask] - 1
    boxes = stats[1:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    return _Parts(part_of[pixels], boxes.astype(np.int32), stats[1:, cv2.CC_STAT_AREA].astype(np.int32))


def _drop_parts(
    probability: Probability, bound: np.float32, smallest_area: int, largest_only: bool
) -> Probability:
    parts = _parts(probability > bound, connectivity=8)
    if parts is None:
        return probability
    stays = parts.areas >= smallest_area
    if largest_only:
        stays &= np.arange(len(stays)) == parts.areas.argmax()
    return np.where(stays[parts.nearest], probability, np.float32(0))


def _fill_holes(probability: Probability, bound: np.float32) -> Probability:
    rest = _parts(probability <= bound, connectivity=4)
    if rest is None:
        return probability
    left, top, width, height = rest.boxes.T
    rows, columns = probability.shape
    is_hole = (left > 0) & (top > 0) & (left + width < columns) & (top + height < rows)
    return np.where(is_hole[rest.nearest], np.float32(1), probability)


def _morph(probability: Probability, operation: str, radius: int) -> Probability:
    """Grey-scale morphology with a disc, by the name of its constant in `cv2`. OpenCV leaves what is beyond the borders
    out of minima and maxima.
    """
    if radius == 0:
        return probability
    import cv2

    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x * x + y * y <= radius * radius).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(probability, getattr(cv2, operation), disc), dtype=np.float32)


def _blur(probability: Probability, sigma: float) -> Probability:
    import cv2

    blurred = cv2.GaussianBlur(probability, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(blurred, 0.0, 1.0), dtype=np.float32)


def _checked_guide(picture: Picture | None, probability: Probability) -> Picture:
    if picture is None:
        raise InvalidInput("The guided filter needs the picture that the mask belongs to, and there is none.")
    if picture.shape != (*probability.shape, 3) or picture.dtype != np.uint8:
        raise InvalidInput(
            f"The guided filter's picture is {picture.dtype} {list(picture.shape)};"
            f" uint8 {[*probability.shape, 3]} is needed, the size of the mask."
        )
    return picture
