"""The GPU's script at the bundled model's size on the processor, so that it is known to run where a GPU is lent."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CompileConfig

from benchmarks import cases, checkpoint, direct, gpu, tokens
from benchmarks.cases import Case
from benchmarks.figures import Figure, NotMeasured, Plan
from benchmarks.model import Model
from benchmarks.whole_call import Answered


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint.write(tmp_path_factory.mktemp("checkpoint"), checkpoint.TINY)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_measures_every_phase_and_says_what_it_cannot(monkeypatch):
    monkeypatch.delenv("UPSTREAM_DIR", raising=False)
    figures = {
        (one.panel, one.name): one for one in gpu.figures("cpu", checkpoint.TINY, cases.TINY, repeat=1)
    }
    for case in cases.TINY:
        phases = [
            figures[case.name, f"ours, {name}"].median for name in ("encoding", "generating", "tracking")
        ]
        assert 0 < sum(phases) < figures[case.name, "ours"].median
        assert "names no checkout" in figures["", f"{case.name}: upstream"].reason
    assert figures["", "unload"].values
    assert "no NVIDIA driver tells" in figures["", "device memory left after unload, by the driver"].reason
    for name in ("ours, sdpa", tokens.GROWING):
        assert figures[tokens.PANEL, name].unit == "tokens/s"
    assert "compiles nothing on cpu" in figures["", f"{tokens.PANEL}: {tokens.STATIC}"].reason
    assert "does not run" in figures["", f"{tokens.PANEL}: ours, flash_attention_2"].reason


@pytest.mark.parametrize("objects", cases.PROMPTS)
def test_a_prompt_finds_as_many_objects_as_it_says(folder, objects):
    """The words of a short answer around them, and then the end, though the weights are random."""
    case = Case("", 1, (60, 80), objects)
    answer, masks = direct.segment(direct.load(str(folder), "cpu"), case.pictures(), [case.prompt])
    assert answer.text == f"oo{'[SEG]' * objects}o"
    assert len(masks[0].logits) == objects


def test_a_whole_call_in_this_process_looks_at_each_frame_once(folder):
    """What peaks of device memory are measured with."""
    model = Model(folder, "cpu")
    model.answer(Case("", 7, (60, 80), 2))
    assert model.sa2va.sam2.encoder_calls == 7


def test_both_loops_say_as_many_tokens_as_they_are_asked_for(folder):
    model = Model(folder, "cpu")
    steps = []
    model.sa2va.language.model.get_decoder().register_forward_hook(lambda *_: steps.append(1))
    for say in (model.speak, model.generate, partial(model.generate, cache="static")):
        say(cases.TINY[0].pictures()[0], 12)
        assert len(steps) == 12
        steps.clear()


def test_a_compiler_that_fails_is_the_reason_why_nothing_was_measured(folder, monkeypatch):
    model = Model(folder, "cpu")
    everywhere: Any = CompileConfig(backend="none of that name")
    everywhere._compile_all_devices = True  # else a processor compiles nothing
    monkeypatch.setattr(model.sa2va.language.model.generation_config, "compile_config", everywhere)
    figure = {one.name: one for one in tokens.against_generate(model, 1)}[f"{tokens.PANEL}: {tokens.STATIC}"]
    assert "it does not run here" in figure.reason
    assert "none of that name" in figure.reason


def test_without_bitsandbytes_quantization_is_not_measured(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    reasons = {one.name: one.reason for one in tokens.otherwise(folder, "cpu", 1)}
    for bits in tokens.PRECISIONS:
        assert "needs bitsandbytes" in reasons[f"{tokens.PANEL}: ours, sdpa, {bits}"]


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


def test_alone_it_writes_a_report_too(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "figures", lambda *_: [Figure("one", (1.0,), 2.0)])
    monkeypatch.setattr("sys.argv", ["gpu", "--tiny", "--device", "cpu", "-o", str(tmp_path)])
    assert gpu.main() == 0
    assert "| one | 1.00 s |" in capsys.readouterr().out
    assert "| one | 1.00 s |" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "figures.json").read_text())["about"]["date"]


def test_where_upstreams_whole_call_does_not_run_its_sam2_is_compared(monkeypatch):
    def refuse(*_):
        raise NotMeasured("it failed: no module of that name")

    monkeypatch.setenv("UPSTREAM_DIR", "somewhere")
    monkeypatch.setattr("benchmarks.whole_call.ask_upstream", refuse)
    monkeypatch.setattr(
        "benchmarks.upstream.measure", lambda *_: [Figure("1 object, an image: ours", (1.0,))]
    )
    *unanswered, alone = gpu._upstream(Path(), "cuda", cases.CASES, 1, {})
    assert [one.name for one in unanswered] == [f"{case.name}: upstream" for case in cases.CASES[:4]]
    assert {one.reason for one in unanswered} == {"it failed: no module of that name"}
    assert alone.name == "SAM2 alone, 1 object, an image: ours"


class OnAGpu:
    """A model whose calls take as much memory as they have frames."""

    device = torch.device("cuda")

    def __init__(self):
        self.frames = 0

    def answer(self, case):
        self.frames = max(self.frames, case.frames)

    def peak(self):
        frames, self.frames = self.frames, 0
        return float(frames)


def test_each_call_has_a_peak_of_its_own_and_the_longest_video_one_that_is_flat():
    answered = Answered("", (1, 1, 1, 1), np.ones((1, 1, 1), np.bool_), (1.0,), peak_bytes=7)
    video, *_, longest = gpu._peaks(OnAGpu(), cases.CASES[3:], {cases.CASES[3].name: answered})  # type: ignore[arg-type]
    assert video.values == (32.0,)
    assert longest.values == (300 / 32,)
    assert longest.missed
    peaks = list(gpu._peaks(OnAGpu(), cases.CASES[:2], {cases.CASES[1].name: answered}))  # type: ignore[arg-type]
    assert [(one.name, one.values) for one in peaks] == [
        ("ours", (1.0,)),
        ("ours", (1.0,)),
        ("upstream", (7.0,)),
    ]


def test_the_last_case_is_the_long_one_and_the_one_before_it_differs_in_length_alone():
    """What flat memory is seen by."""
    *_, shorter, longer = cases.CASES
    assert longer.long
    assert (shorter.size, shorter.objects) == (longer.size, longer.objects)
    assert shorter.frames < longer.frames
