"""What a call costs in things that can be counted: regressions are caught here, and not by the clock."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import direct, tracking
from benchmarks.machine import ROOT
from benchmarks.pictures import noise
from benchmarks.tracking_peer import peak_bytes
from sa2va_host.media import read_image
from sa2va_host.protocol import arrays
from sa2va_host.timings import TOKENS
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models import checkpoint
from sa2va_worker.models.checkpoint import BUNDLED, Checkpoint
from sa2va_worker.models.sa2va import build, load

PICTURE = (240, 320)


@pytest.fixture(scope="module")
def engine() -> Sa2VAEngine:
    return direct.load("sa2va-tiny", "cpu")


@pytest.mark.parametrize(("objects", "frames"), [(1, 1), (4, 1), (3, 7)])
def test_each_frame_is_encoded_once_whatever_the_number_of_objects(objects, frames):
    sam2 = tracking.build(torch.device("cpu"), Checkpoint(BUNDLED / "sa2va-tiny").config["sam2_config"])
    with torch.inference_mode():
        assert len(list(tracking.track(sam2, objects, frames))) == frames
    assert sam2.encoder_calls == frames


def test_a_process_counts_its_own_memory_and_not_its_parents():
    """Linux hands the peak of `getrusage` on to a child."""
    held = np.ones(1 << 26)
    code = "from benchmarks.tracking_peer import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, check=True)
    assert int(done.stdout) < held.nbytes <= peak_bytes()


def test_the_language_model_runs_once_for_each_token(engine):
    runs = []
    decoder = engine._model.model.language.model.get_decoder()
    hook = decoder.register_forward_hook(lambda *_: runs.append(1))
    answer, _ = direct.segment(engine, [noise(PICTURE)], ["the red circle"])
    hook.remove()
    assert len(runs) == answer.timings[TOKENS]


def test_a_picture_is_looked_at_once_for_all_prompts(engine):
    seen = []
    vision = engine._model.model.language.model.model.visual
    hook = vision.register_forward_hook(lambda *_: seen.append(1))
    direct.segment(engine, [noise(PICTURE)], ["the red circle", "the green square", "everything"])
    hook.remove()
    assert len(seen) == 1


def test_a_picture_is_copied_once_on_its_way():
    """An array of the right form is not copied when it is read, and once into the message."""
    picture = noise((1080, 1920))
    assert np.shares_memory(read_image(picture), picture)
    tracemalloc.start()
    packed = arrays.pack([read_image(picture)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * picture.nbytes
    del packed


class Copies(TorchDispatchMode):
    """Counts the numbers that are copied into tensors, and the bytes of every new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[int] = []
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.copy_.default:
            self.copied.append(result.numel())
        elif isinstance(result, torch.Tensor):
            sources = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
            if result.untyped_storage().data_ptr() not in sources:
                self.made += result.nbytes
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_reads_each_tensor_once_and_copies_it_once(monkeypatch, dtype):
    """From the mapped file straight to its place: whatever the precision, nothing lies between."""
    read = []

    class Opened:
        """A file that notes which tensors are asked for."""

        def __init__(self, *args, **kwargs):
            self._opened = safe_open(*args, **kwargs)

        def __enter__(self):
            self._opened.__enter__()
            return self

        def __exit__(self, *reason):
            self._opened.__exit__(*reason)

        def __getattr__(self, name):
            return getattr(self._opened, name)

        def get_tensor(self, name):
            read.append(name)
            return self._opened.get_tensor(name)

    monkeypatch.setattr(checkpoint, "safe_open", Opened)
    folder = Checkpoint(BUNDLED / "sa2va-tiny")
    model = build(folder, torch.device("cpu"), dtype)
    shapes = {name: values.numel() for name, values in folder.tensors(shapes_only=True)}
    assert not read, "building reads headers alone"
    with Copies() as copies:
        for _ in load(model, folder):
            pass
    assert sorted(read) == sorted(shapes)
    assert sorted(copies.copied) == sorted(shapes.values())
    assert copies.made < 0.01 * sum(shapes.values()) * dtype.itemsize
