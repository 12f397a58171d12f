"""Values that come over a wire, or stand where a wire belongs, are held to the node's schema."""

import asyncio

import numpy as np
import pytest
import torch

from sa2va_host.errors import InvalidInput
from tests.model_options import UNCHANGED


@pytest.fixture
def offered(comfy):
    """The nodes as ComfyUI is given them, by id."""
    from sa2va_plugins.comfyui import extension

    nodes = asyncio.run(extension.Sa2VAExtension().get_node_list())
    return {node.define_schema().node_id: node for node in nodes}


@pytest.fixture
def refused(offered):
    """``refused(node, **inputs)`` is the sentence that the node refuses its inputs with."""

    def run(name, **inputs):
        with pytest.raises(InvalidInput) as caught:
            offered[name].execute(**inputs)
        return str(caught.value)

    return run


@pytest.mark.parametrize(
    ("name", "inputs", "sentence"),
    [
        ("Sa2VAChat", {"options": "cpu"}, "options is 'cpu'. Connect Sa2VA Model Options, or nothing."),
        ("Sa2VAChat", {"video": [1]}, "video is a list. Connect a VIDEO, as from Load Video."),
        ("Sa2VAChat", {"image": {"a": 1}}, "image is a dict. Connect an IMAGE, as from Load Image."),
        ("Sa2VAChat", {"prompt": None}, "prompt is None. Use text."),
        ("Sa2VAChat", {"model": 5}, "model is 5. Use text."),
        ("Sa2VAChat", {"video_frames": 65}, "video_frames is 65. Use a whole number from 1 to 64."),
        ("Sa2VAChat", {"video_frames": 2.5}, "video_frames is 2.5. Use a whole number from 1 to 64."),
        ("Sa2VAImageSegmentation", {"threshold": -1.0}, "threshold is -1.0. Use a number from 0.0 to 1.0."),
        (
            "Sa2VAImageSegmentation",
            {"threshold": float("nan")},
            "threshold is nan. Use a number from 0.0 to 1.0.",
        ),
        ("Sa2VARefineEdges", {"method": 5}, "method is 5. Use one of guided filter, ViTMatte."),
        ("Sa2VARefineEdges", {"method": "x"}, "method is 'x'. Use one of guided filter, ViTMatte."),
        ("Sa2VARefineEdges", {"mask": "x"}, "mask is 'x'. Connect a MASK."),
        (
            "Sa2VAChat",
            {"model": "a\x1b[31mb"},
            r"model is 'a\x1b[31mb'. Use text without control characters.",
        ),
        (
            "Sa2VAModelOptions",
            {"revision": "\0"},
            r"revision is '\x00'. Use text without control characters.",
        ),
        ("Sa2VAUnload", {"force": "no"}, "force is 'no'. Use true or false."),
    ],
)
def test_a_value_that_the_schema_does_not_allow_is_one_sentence(refused, name, inputs, sentence):
    assert refused(name, **inputs) == sentence


def test_a_sentence_does_not_repeat_an_endless_value(refused):
    assert len(refused("Sa2VAChat", model="a" * 10_000)) < 200
    assert len(refused("Sa2VARefineEdges", method="\x1b[31m" * 10_000)) < 200
    assert len(refused("Sa2VAModelOptions", device="a" * 10_000)) < 200
    assert refused("Sa2VAChat", video_frames=10**4000).endswith("Use a whole number from 1 to 64.")


def test_numbers_of_numpy_and_wires_that_are_not_connected_are_taken(offered):
    result = offered["Sa2VARefineEdges"].execute(
        image=torch.zeros(1, 8, 8, 3),
        method="guided filter",
        radius=np.int64(2),
        erode=6,
        dilate=6,
        black_point=np.float32(0.25),
        white_point=0.99,
        max_megapixels=2,
        mask=torch.ones(1, 8, 8),
        tracks=None,
        options=None,
    )
    assert torch.equal(result.args[0], torch.ones(1, 8, 8))


def test_a_kernel_of_the_hub_is_for_model_options_to_judge(refused):
    said = refused("Sa2VAModelOptions", **UNCHANGED | {"attention": "kernels-community/flash-attn"})
    assert "no workflow may" in said
