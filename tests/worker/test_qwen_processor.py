"""Which image processor runs is what a Qwen checkpoint declares, and its pixels are transformers' own, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.pictures import QwenPictures, utils_size
from sa2va_worker.models.qwen_processor import QwenProcessor, read_processor
from tests.parity.weights import HERE
from tests.worker.conftest import load_engine

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("qwen_processors.json").read_text())
"""What `Qwen2VLImageProcessorFast` and `Qwen2VLImageProcessor` make of `CASES` behind qwen_vl_utils 0.0.14, with
`MIN_PIXELS` and `MAX_PIXELS` (transformers 4.57.6, torch 2.11.0, torchvision 0.26.0): grids, and SHA-256 of the pixel
values as little-endian float32."""
MIN_PIXELS, MAX_PIXELS = 56 * 56, 168 * 168
CASES = {
    "one pixel": [(1, 1)],
    "tiny": [(5, 7)],
    "wide": [(10, 1500)],
    "tall": [(700, 20)],
    "as it is": [(56, 112)],
    "large": [(217, 333)],
    "several": [(60, 80), (100, 41), (60, 80)],
}
"""(height, width) of each image."""
FAMILIES = {"qwen3": (16, [0.5] * 3, [0.5] * 3), "qwen25": (14, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)}
"""Patch, mean and deviation."""
SIZES = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
FAST = "Qwen2VLImageProcessorFast"
Write = Callable[..., Checkpoint]


def image(height: int, width: int) -> NDArray[np.uint8]:
    y, x, channel = np.ogrid[:height, :width, :3]
    return np.asarray((y * 7 + x * 13 + channel * 50 ^ x * y // 3) % 256, np.uint8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["fast", "pillow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_transformers(family: str, kind: str, case: str) -> None:
    patch, mean, std = FAMILIES[family]
    prepare = QwenPictures(patch, 2, 2, mean, std, MIN_PIXELS, MAX_PIXELS, fast=kind == "fast")
    patches = prepare([image(*size) for size in CASES[case]])
    wanted = GOLDEN[f"{family}.{kind}.{case}"]
    assert patches.grids.tolist() == wanted["grids"]
    values = np.ascontiguousarray(patches.values.numpy(), "<f4")
    assert hashlib.sha256(values.tobytes()).hexdigest() == wanted["sha256"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_two_differ_where_an_image_is_resized_again(family: str) -> None:
    fast, pillow = (GOLDEN[f"{family}.{kind}.large"] for kind in ("fast", "pillow"))
    assert fast["grids"] == pillow["grids"]
    assert fast["sha256"] != pillow["sha256"]


@pytest.mark.parametrize(("height", "width"), [(41, 8200), (8200, 41), (1, 201)])
def test_an_image_too_long_for_the_processor_is_refused(height: int, width: int) -> None:
    with pytest.raises(InvalidInput, match="more than 200 times as long as wide"):
        QwenPictures(16, 2, 2, [0.5] * 3, [0.5] * 3)([np.zeros((height, width, 3), np.uint8)])


def test_an_image_just_short_enough_is_taken() -> None:
    assert utils_size(42, 8400) == (56, 8400)
    assert utils_size(28, 5600) == (28, 5600)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a folder with these JSON files and no others."""

    def write(**files: object) -> Checkpoint:
        for name, content in {"config": {}, **files}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return Checkpoint(tmp_path)

    return write


def declared(checkpoint: Checkpoint) -> QwenProcessor:
    return read_processor(checkpoint, SIZES)


@pytest.mark.parametrize(
    ("kind", "fast"),
    [
        ("Qwen2VLImageProcessor", False),
        ("Qwen2VLImageProcessorPil", False),
        ("Qwen2_5_VLImageProcessor", False),
        (FAST, True),
    ],
)
def test_the_name_decides(write: Write, kind: str, fast: bool) -> None:
    assert declared(write(preprocessor_config={"image_processor_type": kind})).fast is fast


def test_where_a_declaration_is_found(write: Write) -> None:
    slow, fast = ({"image_processor_type": kind} for kind in ("Qwen2VLImageProcessor", FAST))
    nested = {
        "processor_class": "Qwen3VLProcessor",
        "image_processor": {**fast, "image_mean": [0.1, 0.2, 0.3]},
    }
    only = declared(write(processor_config=nested))
    assert (only.fast, only.mean) == (True, (0.1, 0.2, 0.3))
    assert declared(write(processor_config=nested, preprocessor_config=slow)).fast is False
    assert declared(write(preprocessor_config=nested)).fast is True
    assert declared(write(config=fast, preprocessor_config={"image_mean": [0.5, 0.5, 0.5]})).fast is True


def test_what_is_not_set_has_the_defaults_of_the_class(write: Write) -> None:
    found = declared(
        write(preprocessor_config={"image_processor_type": FAST, "image_std": None, "resample": None})
    )
    assert (list(found.mean), list(found.std)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"image_processor_type": "CLIPImageProcessor"},
            "names the image processor 'CLIPImageProcessor'; this",
        ),
        (
            {"image_processor_type": "Qwen3VLImageProcessor"},
            "names the image processor 'Qwen3VLImageProcessor'",
        ),
        ({"image_processor_type": [FAST]}, r"names the image processor \['Qwen2VLImageProcessorFast'\]"),
        (
            {"image_processor_type": None},
            "names no image processor; this model takes Qwen2VLImageProcessor or",
        ),
        ({}, "names no image processor"),
        ({"image_processor": "fast"}, "image_processor in .* is no JSON object"),
        (
            {"image_processor_type": FAST, "auto_map": {"AutoImageProcessor": "own.Own"}},
            "checkpoint's own code",
        ),
        ({"image_processor_type": FAST, "resample": 2}, "resample is 2 in .* it should be 3"),
        ({"image_processor_type": FAST, "do_normalize": False}, "do_normalize is False"),
        ({"image_processor_type": FAST, "rescale_factor": 1}, "rescale_factor is 1"),
        ({"image_processor_type": FAST, "patch_size": 14}, "patch_size is 14 in .* it should be 16"),
        ({"image_processor_type": FAST, "image_mean": 0.5}, "image_mean is 0.5"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused(write: Write, settings: object, said: str) -> None:
    with pytest.raises(ModelLoadFailed, match=said) as caught:
        declared(write(preprocessor_config=settings))
    assert "preprocessor_config.json" in str(caught.value)


def test_a_folder_that_declares_nothing_is_refused_before_its_weights_are_read(
    qwen3_folder: Path, write: Write
) -> None:
    folder = write().folder
    for file in (HERE / "qwen3").glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "preprocessor_config.json").unlink()
    (folder / "model.safetensors").symlink_to(qwen3_folder / "model.safetensors")
    with pytest.raises(
        ModelLoadFailed, match=r"has neither preprocessor_config\.json nor processor_config\.json"
    ):
        load_engine(folder)
