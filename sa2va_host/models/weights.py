"""What safetensors files say of themselves in their headers: which tensors, how many parameters, in which precision.

No weight is read. Called by `checkpoint_folder` and front ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000
"""As much as the format allows (https://huggingface.co/docs/safetensors)."""
DTYPES: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The names of precisions in safetensors' format, and ours; others are told as they are (`I8`, `U8`)."""


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """For each tensor of a file, by its name, what the header says of it: `dtype`, `shape`, `data_offsets`.

    A file's first 8 bytes are the length of the JSON header that follows, little-endian. Raises `OSError`, or
    `ValueError` for what is no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
        return {name: dict(about) for name, about in header.items() if name != "__metadata__"}
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} has no header of a safetensors file.") from error


def shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a file. Raises as `read_header` does."""
    try:
        return {name: [int(side) for side in about["shape"]] for name, about in read_header(path).items()}
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path} has a damaged header.") from error


def parameters(files: Iterable[Path]) -> dict[str, int]:
    """How many values there are of each precision, most first: `{"bfloat16": 4668000000}`. Raises as `read_header`."""
    counts: dict[str, int] = {}
    for path in files:
        try:
            for about in read_header(path).values():
                name = DTYPES.get(str(about["dtype"]), str(about["dtype"]))
                counts[name] = counts.get(name, 0) + prod(int(side) for side in about["shape"])
        except (LookupError, TypeError) as error:
            raise ValueError(f"{path} has a damaged header.") from error
    return dict(sorted(counts.items(), key=lambda each: -each[1]))
