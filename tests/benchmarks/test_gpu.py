"""The GPU's script at the bundled model's size on the processor, so that it is known to run where a GPU is lent."""

from __future__ import annotations

import pytest

from benchmarks import checkpoint, gpu
from benchmarks.figures import NotMeasured, Plan


def test_it_measures_every_phase_and_says_what_it_cannot():
    figures = {
        (one.panel, one.name): one for one in gpu.run("cpu", checkpoint.TINY, gpu.TINY_CASES, repeat=1)
    }
    for case in gpu.TINY_CASES:
        whole, *phases = [
            figures[case.name, name] for name in ("whole", "encoding", "generating", "tracking")
        ]
        assert whole.median == pytest.approx(sum(phase.median for phase in phases))
    assert figures["tokens", "sdpa, quantization none"].unit == "tokens/s"
    assert "does not run" in figures["", "tokens with flash_attention_2, quantization none"].reason
    assert figures["", "unload"].values


def test_its_dimensions_are_those_of_the_published_model():
    """Qwen3-VL-4B has 4.44 billion parameters by its model card, SAM2's Hiera-Large 0.22 billion by its own."""
    shapes = checkpoint.shapes(checkpoint.configuration(checkpoint.QWEN3_VL_4B))
    language = sum(
        shape.numel()
        for name, shape in shapes.items()
        if name.startswith("language.") and "lm_head" not in name
    )
    assert language / 1e9 == pytest.approx(4.44, abs=0.01)
    sam2 = sum(shape.numel() for name, shape in shapes.items() if name.startswith("sam2."))
    assert sam2 / 1e9 == pytest.approx(0.224, abs=0.002)


def test_without_a_gpu_it_is_not_measured(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(NotMeasured, match="no CUDA device"):
        gpu.measure(Plan())
