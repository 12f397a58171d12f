#!/usr/bin/env python3
"""One word per developer task, needing nothing but Python 3.11 or newer: `python3 tasks.py demo`.

Each word first makes `.venv` and installs the pinned set of constraints.txt into it, unless that was done
before for the same pyproject.toml and constraints.txt. SA2VA_VENV names another folder for the environment.
The Makefile and .ci/run call these same words.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("SA2VA_VENV") or ROOT / ".venv").absolute()
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
TEST_EXTRAS = ("worker", "quantization", "test", "training")


def main(arguments: list[str]) -> int:
    """Run the word `arguments[0]` with the rest as its own arguments; returns the exit code."""
    if not arguments or arguments[0] not in WORDS:
        print(help_text())
        return 0 if arguments[:1] in (["help"], ["--help"], ["-h"]) else 2
    if sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"The pinned set needs Python 3.11 or newer; this is {version} ({sys.executable}).")
        return 1
    try:
        return WORDS[arguments[0]](arguments[1:])
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130


def help_text() -> str:
    """What `python3 tasks.py` prints: every word with the first line of its docstring."""
    lines = [f"  {word:12} {(task.__doc__ or '').splitlines()[0]}" for word, task in WORDS.items()]
    return "\n".join(["usage: python3 tasks.py WORD [argument ...]", "", *lines])


def install(extras: tuple[str, ...]) -> None:
    """Make the environment with this project and its `extras`, once for each state of the pins."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{ROOT} {sys.version}".encode())
    wanted = {f"{digest.hexdigest()} {extra}" for extra in extras}
    stamp = VENV / "installed.txt"
    installed = set(stamp.read_text().splitlines()) if stamp.exists() else set()
    if wanted <= installed:
        return
    print(f"Setting up {VENV} (once; the largest part is PyTorch) ...", flush=True)
    stamp.unlink(missing_ok=True)
    if subprocess.run([sys.executable, "-m", "venv", VENV], check=False).returncode:
        raise SystemExit(f"{sys.executable} cannot make virtual environments; install its venv module.")
    python_m(
        *("pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--constraint", str(ROOT / "constraints.txt"), "--editable", f"{ROOT}[{','.join(extras)}]"),
    )
    same = {line for line in installed if line.startswith(digest.hexdigest())}
    stamp.write_text("\n".join(sorted(wanted | same)) + "\n")


def python_m(*arguments: str) -> int:
    """Run `python -m ...` of the environment; a failure ends the task."""
    return run("python", "-m", *arguments)


def run(program: str, *arguments: str) -> int:
    """Run a program of the environment in the project's root; a failure ends the task."""
    ours = ("PYTHONHOME", "PYTHONPATH", "SA2VA_VENV")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run([str(BIN / program), *arguments], cwd=ROOT, env=environment, check=True).returncode


def demo(arguments: list[str]) -> int:
    """Segment the bundled example images with the bundled model; leaves images to look at in demo/."""
    install(("worker", "video"))
    return run("sa2va", "demo", *arguments)


def test(arguments: list[str]) -> int:
    """Run the tests (arguments go to pytest)."""
    install(TEST_EXTRAS)
    return python_m("pytest", *arguments)


def survive(arguments: list[str]) -> int:
    """Run every test of the worker's life at full length, on the bundled model too (more than an hour)."""
    install(TEST_EXTRAS)
    figures = ROOT / "runs" / "survive.jsonl"
    figures.parent.mkdir(exist_ok=True)
    figures.unlink(missing_ok=True)
    os.environ.update(SA2VA_SURVIVE="1", SA2VA_FUZZ="1000000", SA2VA_FIGURES=str(figures))
    return python_m("pytest", "tests/lifecycle", "--timeout=7200", *arguments)


def test_comfyui(arguments: list[str]) -> int:
    """Run the node pack in the real ComfyUI that COMFYUI_DIR names (COMFYUI_PYTHON: its Python)."""
    directory = os.environ.get("COMFYUI_DIR", "")
    if not (Path(directory) / "main.py").is_file():
        print(f"COMFYUI_DIR is {directory!r}; name a checkout of ComfyUI with its requirements in .venv.")
        return 2
    install(TEST_EXTRAS)
    python_m("pip", "install", "--quiet", "playwright>=1.50")
    return python_m("pytest", "tests/comfyui_server", *arguments)


def lint(arguments: list[str]) -> int:
    """Check style and formatting with ruff."""
    install((*TEST_EXTRAS, "dev"))
    python_m("ruff", "check", "--quiet", *arguments)
    return python_m("ruff", "format", "--check", "--quiet", *arguments)


def types(arguments: list[str]) -> int:
    """Check types with mypy."""
    install((*TEST_EXTRAS, "dev"))
    return python_m("mypy", *arguments)


def reformat(arguments: list[str]) -> int:
    """Format the code and mend what ruff can mend."""
    install((*TEST_EXTRAS, "dev"))
    python_m("ruff", "format", *arguments)
    return python_m("ruff", "check", "--fix", *arguments)


def bench(arguments: list[str]) -> int:
    """Measure everything against its peers and write a dated report into benchmarks/results."""
    install(("worker", "quantization", "bench"))
    return python_m("benchmarks", *arguments)


def train(arguments: list[str]) -> int:
    """Train the bundled model anew, into runs/sa2va-tiny unless --out says otherwise."""
    install(("worker", "training"))
    out = [] if "--out" in arguments else ["--out", str(ROOT / "runs" / "sa2va-tiny")]
    return python_m("training.train", *out, *arguments)


def table(arguments: list[str]) -> int:
    """Measure the bundled model on held-out scenes of both generators and print the table."""
    install(("worker", "training"))
    return python_m("training.evaluate", *arguments)


def clean(arguments: list[str]) -> int:
    """Remove the environment and everything generated."""
    del arguments
    generated = [VENV, *(ROOT / name for name in ("build", "demo", "sa2va_host.egg-info"))]
    generated += [ROOT / name for name in (".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis")]
    for folder in generated:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


WORDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "test": test,
    "survive": survive,
    "test-comfyui": test_comfyui,
    "lint": lint,
    "types": types,
    "format": reformat,
    "bench": bench,
    "train": train,
    "table": table,
    "clean": clean,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
