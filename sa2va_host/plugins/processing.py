"""Running mask processors, wherever they run: the same checks on the host and in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput, WorkerError
from sa2va_host.protocol.limits import MAX_BUFFER_BYTES

if TYPE_CHECKING:
    from .hookspecs import MaskProcessor, Options, Process


def checked(
    processors: Mapping[str, MaskProcessor], name: str, given: Options
) -> tuple[MaskProcessor, dict[str, float | str]]:
    """The processor of this name with all of its options. Raises `InvalidInput` for an unknown name, an unknown option
    or a value of the wrong kind.
    """
    processor = processors.get(name)
    if processor is None:
        known = ", ".join(sorted(processors)) or "none"
        raise InvalidInput(f"There is no mask processor {name!r}.", advice=f"There is: {known}.")
    for option, value in given.items():
        if option not in processor.options:
            known = ", ".join(processor.options) or "none"
            raise InvalidInput(
                f"The mask processor {name!r} has no option {option!r}.", advice=f"It has: {known}."
            )
        wanted = "text" if isinstance(processor.options[option], str) else "a number"
        if isinstance(value, str) != (wanted == "text"):
            raise InvalidInput(
                f"The option {option!r} of the mask processor {name!r} is {wanted}, not {value!r}."
            )
    return processor, {**processor.options, **given}


def run(
    processor: MaskProcessor,
    process: Process,
    probability: NDArray[np.float32],
    picture: NDArray[np.uint8],
    options: Options,
) -> NDArray[np.float32]:
    """One object's probability `[height, width]` after the processor. Raises `WorkerError` for a wrong shape."""
    result = np.asarray(process(probability, picture, options), np.float32)
    if result.shape != probability.shape:
        raise WorkerError(
            f"The mask processor {processor.name!r} made {list(result.shape)} of {list(probability.shape)}.",
            advice="Report it to the authors of that plugin.",
        )
    return result


def process_here(
    processor: MaskProcessor,
    probabilities: NDArray[np.float32],
    picture: NDArray[np.uint8],
    options: Options,
) -> NDArray[np.float32]:
    """Every object `[objects, height, width]` through a processor in this process."""
    process = processor.make("cpu")
    results = np.empty_like(probabilities)
    for index, probability in enumerate(probabilities):
        results[index] = run(processor, process, probability, picture, options)
    return results


def probabilities_of(given: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float32]:
    """What a caller gives as probabilities `[objects, height, width]` of a picture of this size, as float32.

    Masks (bool) are probabilities of 0 and 1. Raises `InvalidInput`.
    """
    array = np.asarray(given)
    if array.ndim != 3 or array.shape[1:] != size:
        raise InvalidInput(
            f"The probabilities have shape {list(array.shape)}; [objects, {size[0]}, {size[1]}] is needed, the"
            " picture's size."
        )
    if array.dtype != np.bool_ and array.dtype.kind != "f":
        raise InvalidInput(f"The probabilities are {array.dtype}; float in 0..1 or bool is needed.")
    if array.size * 4 > MAX_BUFFER_BYTES:
        raise InvalidInput(
            f"The probabilities of {len(array)} objects take more than {MAX_BUFFER_BYTES >> 30} GiB.",
            advice="Process fewer objects at once.",
        )
    values = array.astype(np.float32)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails this too
        raise InvalidInput("The probabilities have values outside 0..1.")
    return values
