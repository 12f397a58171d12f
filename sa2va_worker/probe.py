"""Tells what an interpreter has for the worker: ``python .../sa2va_worker/probe.py ENGINE DISTRIBUTION ...``, where
ENGINE is the module to import, or `-` for none.

Run by `sa2va_host.machine.interpreters` as the worker itself is run: by this file, in the interpreter in question,
with nothing of ours on ``sys.path``. Reads versions and asks torch for its devices; with an engine it also imports what
the worker imports, and has optional libraries do a small piece of their work. Starts no worker and prints one JSON
object. Whatever fails is part of the answer, so this file needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def probe(engine: str, distributions: list[str]) -> dict[str, Any]:
    """The fields of `sa2va_host.machine.interpreters.Interpreter`. ``engine``: the module that has to be importable, or
    empty where only versions and devices are asked for.
    """
    found: dict[str, Any] = {
        "executable": sys.executable,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*distributions, *TRIALS)},
        "error": "",
    }
    if engine:
        try:
            runpy.run_path(str(HERE / "__main__.py"))["register_packages"](HERE.parent)
            from sa2va_worker.libraries import importing

            with importing():
                import_module(engine)
            import_module("sa2va_worker.process")
        except BaseException as error:  # noqa: BLE001 - a library may even leave the process; that is the answer then
            found["error"] = _sentence(error)
    if found["versions"].get("torch") is None:
        return found
    try:
        import torch

        found["cuda"] = torch.version.cuda or ""
        found["hip"] = torch.version.hip or ""
        found["devices"] = [
            f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())
        ]
        if torch.backends.mps.is_available():
            found["devices"].append("mps")
    except Exception as error:  # noqa: BLE001 - as above
        found["error"] = found["error"] or _sentence(error)
    if engine:
        found["trials"] = {name: _outcome(trial) for name, trial in TRIALS.items() if found["versions"][name]}
    return found


def _quantize() -> None:
    import torch

    from sa2va_worker.models.quantization import import_bitsandbytes

    import_bitsandbytes()
    from bitsandbytes import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = torch.linspace(-1, 1, 4096, device=device, dtype=torch.float16).reshape(64, 64)
    packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    # The numbers of nf4 between -1 and 1 are at most 0.31 apart (Dettmers et al. 2023, QLoRA, appendix E).
    if not torch.allclose(functional.dequantize_4bit(packed, state), weights, atol=0.2):
        raise ArithmeticError("4-bit weights come back changed")


def _attend() -> None:
    import torch

    from sa2va_worker import attention

    if not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device")
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    attention.run(attention.FLASH, torch.device("cuda"), dtype)


def _kernels() -> None:
    import transformers
    from transformers.utils.import_utils import is_kernels_available

    if not is_kernels_available():
        raise RuntimeError(f"transformers {transformers.__version__} wants another version of it")


TRIALS = {"bitsandbytes": _quantize, "flash-attn": _attend, "kernels": _kernels}
"""A small piece of work for each optional library, by distribution."""


def _outcome(trial: Callable[[], None]) -> str:
    """Empty where a trial went well, else why not."""
    try:
        trial()
    except Exception as error:  # noqa: BLE001 - as above
        return _sentence(error)
    return ""


def _sentence(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    if sys.path and Path(sys.path[0] or ".").resolve() == HERE:
        del sys.path[0]  # as in __main__.py
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # libraries that print while they are imported do not spoil the answer
        json.dump(probe(sys.argv[1].strip("-"), sys.argv[2:]), answer)
