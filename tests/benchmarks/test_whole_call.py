"""Upstream's whole call is compared with ours where it runs and answers the same; else the reason is said."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import cases, checkpoint, direct, whole_call
from benchmarks.cases import Case
from benchmarks.figures import NotMeasured
from benchmarks.whole_call import Answered
from sa2va_host import Sa2VA
from sa2va_host.masks import masks

CASE = Case("an image", 1, (60, 80), 1, against_upstream=0.5)
MINE = Answered("oo[SEG]o", (1, 1, 2, 2), np.array([[[True, False], [True, False]]]), (1.0, 3.0, 2.0))
THEIRS = replace(MINE, seconds=(8.0,), first=np.array([[[True, False], [True, True]]]), attention="sdpa")


def test_times_are_compared_where_both_answered_the_same():
    upstream, ratio, equal = whole_call.against(CASE, MINE, THEIRS)
    assert upstream.values == (8.0,)
    assert (ratio.values, ratio.aim) == ((0.25,), 0.5)
    assert (equal.values, equal.unit) == ((75.0,), "%")


@pytest.mark.parametrize("other", [{"text": "oo[SEG][SEG]o"}, {"shape": [1, 2, 2, 2]}])
def test_other_answers_are_not_compared(other):
    _, ratio = whole_call.against(CASE, MINE, replace(THEIRS, **other))
    assert not ratio.values
    assert "upstream 'oo[SEG]" in ratio.reason


def test_without_a_checkout_there_is_no_upstream(monkeypatch, tmp_path):
    monkeypatch.delenv("UPSTREAM_DIR", raising=False)
    with pytest.raises(NotMeasured, match="UPSTREAM_DIR names no checkout"):
        list(whole_call.ask_upstream(tmp_path, "cpu", [CASE], 1))


def test_why_upstreams_code_does_not_load_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("UPSTREAM_DIR", str(tmp_path))
    monkeypatch.setenv("UPSTREAM_PYTHON", sys.executable)
    with pytest.raises(NotMeasured, match="it failed: ModuleNotFoundError: No module named 'models_qwen3vl'"):
        list(whole_call.ask_upstream(tmp_path, "cpu", [CASE], 1))


def test_what_upstream_answered_before_it_failed_is_kept(monkeypatch, tmp_path):
    np.save(tmp_path / "first.npy", MINE.first)
    found = {
        "text": "oo[SEG]o",
        "shape": [1, 1, 2, 2],
        "first": str(tmp_path / "first.npy"),
        "seconds": [1.0],
        "peak_bytes": 5,
        "attention": "sdpa",
    }
    (tmp_path / "answer.json").write_text(json.dumps(found) + "\n")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat '{tmp_path}/answer.json'\necho 'out of memory' >&2\nexit 1\n")
    python.chmod(0o700)
    monkeypatch.setenv("UPSTREAM_DIR", str(tmp_path))
    monkeypatch.setenv("UPSTREAM_PYTHON", str(python))
    answers = whole_call.ask_upstream(tmp_path, "cuda", [CASE, CASE], 1)
    assert next(answers).peak_bytes == 5
    with pytest.raises(NotMeasured, match="it failed: out of memory"):
        next(answers)


def test_ours_goes_from_pictures_to_masks_at_full_size(tmp_path):
    folder = checkpoint.write(tmp_path, checkpoint.TINY)
    with Sa2VA(model=folder, device="cpu") as sa:
        for case in cases.TINY:
            answered = whole_call.ask(sa, case, 2)
            assert answered.text == "oo[SEG][SEG]o"
            assert tuple(answered.shape) == (2, case.frames, *case.size)
            assert answered.first.shape == (2, *case.size)
            assert answered.first.dtype == np.bool_
            assert len(answered.seconds) == len(answered.timings) == 2
        sa.unload()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("UPSTREAM_DIR"), reason="UPSTREAM_DIR names no checkout of upstream")
def test_upstreams_code_answers_the_same_from_the_same_checkpoint(tmp_path):
    """Its SAM2 has one size, so a processor does one image; the language model is the bundled one's size."""
    folder = checkpoint.write(tmp_path, checkpoint.TINY_WITH_HIERA_LARGE)
    (case,) = cases.ONE
    (theirs,) = whole_call.ask_upstream(folder, "cpu", [case], 1)
    answer, found = direct.segment(direct.load(str(folder), "cpu"), case.pictures(), [case.prompt])
    mine = masks.binarise(found[0].logits[:, None], 1024, case.size)
    assert theirs.text == answer.text == "oo[SEG]o"
    assert tuple(theirs.shape) == mine.shape == (1, 1, *case.size)
    assert 0.1 < mine.mean() < 0.9
    assert (theirs.first == mine[:, 0]).mean() > 0.999
