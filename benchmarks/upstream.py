"""Segmenting and tracking at SAM2's true size, against upstream's code on the same machine.

`UPSTREAM_DIR` names a checkout of upstream (github.com/bytedance/Sa2VA), and `UPSTREAM_PYTHON` a Python that
can run it, where this one cannot. Without a checkout ours is measured alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .figures import Figure, NotMeasured, Plan, not_measured, ratio
from .machine import ROOT

CASES = ((1, 1), (2, 1), (4, 1), (1, 4), (2, 4), (1, 8), (2, 8))
"""(objects, frames). One encoding takes some ten seconds on two cores, so these are few."""
FOUR_OBJECTS = 0.35
"""The most of upstream's time that four objects on an image may take."""
ALONE = (1, 16)
"""(objects, frames) of ours alone, with the peak after each frame."""
FULL = 12
"""With so many frames the tracker holds all that it ever will: what five key frames and the six last frames left."""
FLAT = 1.05
"""How much higher the peak may be after the last frame of `ALONE` than after `FULL` of them."""


def measure(plan: Plan, device: str = "cpu", cases: Sequence[tuple[int, int]] = CASES) -> Iterator[Figure]:
    """Seconds, encoder calls and peak memory of each case, each in a process of its own."""
    del plan
    repeat = 1 if device == "cpu" else 3
    ours, theirs = {}, {}
    for objects, frames in cases:
        name = f"{objects} object{'s' * (objects > 1)}, {f'{frames} frames' if frames > 1 else 'an image'}"
        arguments = (device, str(objects), str(frames), str(repeat))
        mine = _figures(name, "ours", _run(sys.executable, "benchmarks.tracking", *arguments), frames)
        yield from mine
        ours[objects, frames] = mine[-1]
        try:
            checkout, python = checkout_and_python()
            found = _run(python, "benchmarks.tracking_peer", checkout, *arguments)
        except NotMeasured as why:
            yield not_measured(f"{name}: upstream", why)
            continue
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or "").strip().splitlines() or ["without a word"]
            yield not_measured(f"{name}: upstream", f"it failed: {lines[-1]}")
            continue
        peers = _figures(name, "upstream", found)
        yield from peers
        theirs[objects, frames] = peers[-1]
        aim = FOUR_OBJECTS if (objects, frames) == (4, 1) else None
        yield ratio(f"{name}: time, ours against upstream", mine[0], peers[0], aim)
    for whose, peaks in (("ours", ours), ("upstream", theirs)):
        for objects in (1, 2):
            if (objects, 4) in peaks and (objects, 8) in peaks:
                name = f"{objects} object{'s' * (objects > 1)}: peak of 8 frames against 4, {whose}"
                yield ratio(name, peaks[objects, 8], peaks[objects, 4])
    if (ALONE[0], 8) in ours:
        objects, frames = ALONE
        longer = _run(sys.executable, "benchmarks.tracking", device, str(objects), str(frames), "1")
        yield from _figures(f"{objects} object, {frames} frames", "ours", longer, frames)
        full, last = (Figure("", (float(longer["peaks"][count - 1]),)) for count in (FULL, frames))
        yield ratio(
            f"{objects} object: peak after {frames} frames against after {FULL}, ours", last, full, FLAT
        )


def checkout_and_python() -> tuple[str, str]:
    """Upstream's checkout and the Python that runs it. Raises `NotMeasured` where there is no checkout."""
    checkout = os.environ.get("UPSTREAM_DIR", "")
    if not checkout:
        raise NotMeasured("UPSTREAM_DIR names no checkout of it.")
    return checkout, os.environ.get("UPSTREAM_PYTHON") or sys.executable


def _figures(name: str, whose: str, found: dict[str, Any], encodings: int | None = None) -> list[Figure]:
    """`encodings` is the most that the image encoder should be called."""
    return [
        Figure(f"{name}: {whose}", tuple(found["seconds"])),
        Figure(f"{name}: encoder calls, {whose}", (float(found["encoder_calls"]),), encodings, "calls"),
        Figure(f"{name}: peak of the process, {whose}", (float(found["peak_bytes"]),), unit="bytes"),
    ]


def _run(python: str, module: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
