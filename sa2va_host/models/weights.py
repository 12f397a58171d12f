"""What safetensors files say of themselves in their headers: how many parameters, in which precision.

Called by front ends. No weight is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from .checkpoint_folder import MAX_JSON_BYTES

DTYPES: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The names of precisions in safetensors' format, and ours; others are told as they are (`I8`, `U8`)."""


def parameters(files: Iterable[Path]) -> dict[str, int]:
    """How many values there are of each precision, most first: `{"bfloat16": 4668000000}`.

    A file's first 8 bytes are the length of the JSON header that follows, little-endian
    (https://huggingface.co/docs/safetensors). Raises `OSError`, or `ValueError` for what is no such file.
    """
    counts: dict[str, int] = {}
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MAX_JSON_BYTES:
                raise ValueError(f"{path} has no header of a safetensors file.")
            header = json.loads(file.read(length))
        try:
            tensors = [about for name, about in header.items() if name != "__metadata__"]
            sizes = [(str(about["dtype"]), prod(int(side) for side in about["shape"])) for about in tensors]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} has a damaged header.") from error
        for kind, values in sizes:
            name = DTYPES.get(kind, kind)
            counts[name] = counts.get(name, 0) + values
    return dict(sorted(counts.items(), key=lambda each: -each[1]))
