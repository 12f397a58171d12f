"""The virtual environment that `sa2va setup` makes: by which program, with which PyTorch, and whether it is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sa2va_host.errors import InvalidInput, WorkerStartFailed
from sa2va_host.machine.worker_program import clean_environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from sa2va_host.machine.interpreters import Interpreter
    from sa2va_host.machine.nvidia import Driver

Build = Literal["cpu", "cuda"]

CUDA_BUILDS = (((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 0), "cu126"), ((11, 8), "cu118"))
"""The newest CUDA that the driver runs, and uv's name of the build for it (`--torch-backend`). Within a major version
any driver will do (NVIDIA's CUDA Compatibility guide); 12.8 is the first for the GPUs of 2025. PyPI has one build for
each system, for CUDA on Linux and for the CPU on Windows; the others are in PyTorch's own index, which uv knows.
"""
NEWEST_ON_PYPI = (13, 0)
"""The CUDA that PyPI's build for Linux needs of the driver."""
OLDEST_UV = (0, 7, 14)
"""The first whose `pip install` knows `--torch-backend` for the builds of `CUDA_BUILDS` (uv's changelog)."""
MADE = "made"
"""In the mark of an interrupted set-up: it had made the folder itself."""
_FORCED = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
_DROPPED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
"""What would have pip install elsewhere than in the environment."""
_MODULES = """
import json
found = []
for name in ("uv", "venv", "ensurepip", "virtualenv", "pip"):
    try:
        __import__(name)
        found.append(name)
    except Exception:
        pass
print(json.dumps(found))
"""
_RUN_VIRTUALENV = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1));"  # one line, since users paste it
    " runpy.run_module('virtualenv', run_name='__main__', alter_sys=True)"
)
"""Works where PYTHONPATH does not count, as in the portable Pythons of Windows, which have a `._pth` file."""


@dataclass(frozen=True)
class Torch:
    """The PyTorch of an environment."""

    build: Build
    backend: str = ""
    """uv's name of the build; empty where the default index has it, or the system has only one."""
    reason: str = ""
    """Why it is this one, in words."""
    asked: bool = False
    """Whether the user asked for it."""

    def source(self, *, guess: bool) -> list[str]:
        """uv's options for it; none for the default index. With ``guess`` uv looks for a GPU where none was asked for:
        it knows those of AMD and Intel too.
        """
        if not self.backend:
            return []
        unsure = guess and self.build == "cpu" and not self.asked
        return ["--torch-backend", "auto" if unsure else self.backend]

    def suits(self, found: Interpreter, driver: Driver | None) -> bool:
        """Whether the PyTorch that is installed there will do: it is of this build, and the driver runs it."""
        if self.build == "cpu":
            # Where nobody asked, one for CUDA or ROCm does no harm, and may know a GPU that NVIDIA's driver does not.
            return not (self.asked and (found.cuda or found.hip))
        if found.devices:
            return True
        return bool(found.cuda) and (driver is None or _version(found.cuda)[0] <= _version(driver.cuda)[0])


def choose_torch(asked: Build | None, driver: Driver | None, platform: str = sys.platform) -> Torch:
    """The PyTorch for this machine, or for what was asked. Raises `InvalidInput` for what there is none of."""
    has_gpu = driver is not None and bool(driver.gpus)
    if platform == "darwin":
        if asked == "cuda":
            raise InvalidInput("There is no PyTorch for CUDA on macOS.", advice="Leave --cuda out.")
        return Torch("cpu", "", "macOS has one build, with Metal")
    on_cpu = Torch("cpu", "cpu" if platform == "linux" else "")
    if asked == "cpu":
        return Torch("cpu", on_cpu.backend, "--cpu asks for it", asked=True)
    if asked is None and not has_gpu:
        return Torch("cpu", on_cpu.backend, "there is no NVIDIA GPU here; --cuda chooses otherwise")
    why = "--cuda asks for it" if asked else "there is an NVIDIA GPU; --cpu chooses otherwise"
    newest = _version(driver.cuda) if driver else NEWEST_ON_PYPI
    for least, backend in CUDA_BUILDS:
        if newest >= least:
            on_pypi = platform == "linux" and least >= NEWEST_ON_PYPI
            return Torch("cuda", "" if on_pypi else backend, why, asked is not None)
    assert driver is not None
    oldest = ".".join(map(str, CUDA_BUILDS[-1][0]))
    sentence = f"the NVIDIA driver {driver.version} is older than CUDA {oldest}"
    if asked == "cuda":
        raise InvalidInput(f"No PyTorch can use this GPU: {sentence}.", advice="Update the driver.")
    return Torch("cpu", on_cpu.backend, f"{sentence}; update it to use the GPU")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the commands that make it or bring it up to date."""

    folder: Path
    kind: str
    """The extra of ours that it is for: `worker` or `remote-code`."""

    @property
    def interpreter(self) -> Path:
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def mark(self) -> Path:
        """The file beside the folder that is there while a set-up is under way, or did not come to its end: it may have
        left a package half written that pip takes for installed. Not inside, where making the environment anew would
        remove it.
        """
        return self.folder.with_name(f".{self.folder.name}.sa2va-setup")

    @property
    def is_interrupted(self) -> bool:
        """Whether a set-up began here and did not come to its end."""
        return self.mark.is_file()

    @property
    def may_be_cleared(self) -> bool:
        """Whether the set-up that did not come to its end had made the folder, so that nothing else is in it."""
        return self.is_interrupted and self.mark.read_text("utf-8").strip() == MADE

    def has(self, found: Interpreter) -> bool:
        """Whether an interpreter is the one of this environment."""
        return self.interpreter.exists() and Path(found.executable).absolute() == self.interpreter.absolute()

    def begin(self) -> None:
        """Note that a set-up is under way."""
        if not self.is_interrupted:
            is_new = not self.folder.exists() or not any(self.folder.iterdir())
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.mark.write_text(f"{MADE if is_new else 'changed'}\n", "utf-8")

    def finish(self) -> None:
        """Note that it came to its end, and the worker can run."""
        self.mark.unlink(missing_ok=True)

    def commands(
        self,
        python: str,
        torch: Torch,
        spec: Requirement | None,
        extras: Sequence[str],
        constraint: Path | None,
        *,
        other_build: bool = False,
    ) -> Iterator[list[str]]:
        """In the order in which they are to be run; each may be run again.

        ``spec`` names the version of PyTorch. ``other_build``: there is a PyTorch in it, and it is not of this build.
        Raises `InvalidInput` where ``python`` cannot make an environment.
        """
        from sa2va_host.machine.distribution import install_arguments, requirements

        clear = self.may_be_cleared
        tools = Tools.find(python)
        yield from tools.make(self.folder, clear=clear)
        anew = self.is_interrupted and not clear
        install = self._install(tools, constraint, anew=anew)
        # A version with `+cu128` in it says where it comes from; an index of the user's own has what they want.
        elsewhere = bool(spec and (spec.url or "+" in str(spec.specifier))) or bool(tools.own_index)
        source = [] if elsewhere else torch.source(guess=bool(tools.uv))
        libraries = [each for each in requirements(self.kind) if each.name in ("torch", "torchvision")]
        if source or other_build:
            named = [str(spec) if spec and each.name == "torch" else _plain(each) for each in libraries]
            knows = tools
            if source and not tools.uv:
                yield [*install, "uv"]
                suffix = ".exe" if sys.platform == "win32" else ""
                knows = replace(tools, uv=(str(self.interpreter.with_name(f"uv{suffix}")),))
            yield [*self._install(knows, constraint, anew=anew or other_build), *source, *named]
        packages = install_arguments([self.kind, *(extra for extra in extras if extra != "flash")])
        packages += [str(spec)] if spec else []
        if "flash" in extras:
            # It is built with the very PyTorch that it is to run with, so everything else has to be there before
            # (flash-attn's README, Installation).
            yield [*install, *packages, "setuptools", "wheel", "packaging", "psutil", "ninja"]
            yield [*install, "--no-build-isolation", *map(_plain, requirements("flash"))]
        else:
            yield [*install, *packages]

    def _install(self, tools: Tools, constraint: Path | None, *, anew: bool) -> list[str]:
        """The beginning of a command that installs packages. ``anew`` writes those that are there once more: what lies
        half written in an environment that is not ours to clear, and another build of PyTorch.
        """
        install = [*tools.install(self.interpreter), *([tools.reinstall] if anew else [])]
        return [*install, *(["--constraint", str(constraint)] if constraint else [])]


@dataclass(frozen=True)
class Tools:
    """The programs that make an environment and install into it."""

    python: str
    """What the environment is made of."""
    uv: tuple[str, ...] = ()
    """The words that start uv where it is used, its program or `PYTHON -m uv`; empty where pip is."""
    modules: frozenset[str] = frozenset()
    """Of venv, ensurepip, virtualenv and pip those that ``python`` has; none where uv is used."""
    own_index: str = ""
    """What of the user's own says where packages come from, such as `PIP_INDEX_URL`; empty for the default."""

    @classmethod
    def find(cls, python: str) -> Tools:
        """uv where it is installed, as a program or in ``python``, unless only pip knows the user's index; else venv,
        else virtualenv.

        Raises `InvalidInput` where there is nothing of them, and virtualenv cannot be installed.
        """
        uv = _find_uv(python)
        uv_index = _first_set(
            "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_NO_INDEX", "UV_TORCH_BACKEND"
        )
        if uv and (uv_index or not _first_set("PIP_INDEX_URL", "PIP_NO_INDEX")):
            return cls(python, uv, own_index=uv_index)
        modules = _modules(python)
        if not ({"venv", "ensurepip"} <= modules or modules & {"virtualenv", "pip"}):
            if uv:
                return cls(python, uv)
            raise InvalidInput(
                f"{python} has neither venv nor virtualenv nor pip, so no environment can be made with it.",
                advice="Install its venv module (Debian and Ubuntu: python3-venv) or uv (https://docs.astral.sh/uv), or"
                " name another Python with --python.",
            )
        return cls(
            python, (), modules, _pip_index(python) if "pip" in modules else _first_set("PIP_INDEX_URL")
        )

    def make(self, folder: Path, *, clear: bool) -> Iterator[list[str]]:
        """The commands that make the environment, anew where it is to be cleared."""
        anew = ["--clear"] if clear else []
        if self.uv:
            yield [*self.uv, "venv", *(anew or ["--allow-existing"]), "--python", self.python, str(folder)]
        elif {"venv", "ensurepip"} <= self.modules:
            yield [self.python, "-m", "venv", *anew, str(folder)]
        elif "virtualenv" in self.modules:
            yield [self.python, "-m", "virtualenv", *anew, str(folder)]
        else:
            beside = folder.with_name(f"{folder.name}-virtualenv")
            yield [self.python, "-m", "pip", "install", "--upgrade", "--target", str(beside), "virtualenv"]
            yield [self.python, "-c", _RUN_VIRTUALENV, str(beside), *anew, str(folder)]

    def install(self, interpreter: Path) -> list[str]:
        """The beginning of a command that installs packages into the environment."""
        if self.uv:
            return [*self.uv, "pip", "install", "--python", str(interpreter)]
        return [str(interpreter), "-m", "pip", "install"]

    @property
    def reinstall(self) -> str:
        """The option that writes packages anew that are there already."""
        return "--reinstall" if self.uv else "--force-reinstall"


def _find_uv(python: str) -> tuple[str, ...]:
    """The words that start a uv which is new enough: the program, or the module of ``python`` or of this Python, as
    ComfyUI's Manager brings it along. Empty where there is none.
    """
    program = shutil.which("uv")
    if program and _is_new_enough(program):
        return (program,)
    for one in dict.fromkeys((python, sys.executable)):
        words = (one, "-m", "uv")
        if shutil.which(one) and "uv" in _modules(one) and _is_new_enough(*words):
            return words
    return ()


def _is_new_enough(*uv: str) -> bool:
    """Whether this uv knows PyTorch's builds; also where it does not tell its version."""
    try:
        said = _ask(*uv, "--version")
    except WorkerStartFailed:
        return False
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", said)
    return found is None or tuple(map(int, found.groups())) >= OLDEST_UV


def execution_environment() -> dict[str, str]:
    """The variables with which the commands run: the user's, without what would install elsewhere."""
    kept = {name: value for name, value in clean_environment(os.environ).items() if name not in _DROPPED}
    return kept | _FORCED


def _modules(python: str) -> frozenset[str]:
    return frozenset(json.loads(_ask(python, "-c", _MODULES) or "[]"))


def _pip_index(python: str) -> str:
    """What in pip's files or variables says that packages come from another index than the default."""
    for line in _ask(python, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        scope, _, key = name.partition(".")
        off = key == "no-index" and value.strip("'\"").lower() in ("", "0", "false", "no", "off")
        if key in ("index-url", "no-index") and scope in (":env:", "global", "install") and not off:
            return f"PIP_{key.upper().replace('-', '_')}" if scope == ":env:" else f"{key} in pip's settings"
    return ""


def _ask(python: str, *arguments: str) -> str:
    """What a Python prints; nothing where it fails. Raises `WorkerStartFailed` where it cannot be started."""
    try:
        done = subprocess.run(
            [python, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=clean_environment(os.environ),
            check=False,
        )
    except OSError as error:
        raise WorkerStartFailed(
            f"{python} cannot be started: {error.strerror or error}.",
            advice="Give the path of a Python with --python; a version alone, such as 3.12, needs uv.",
        ) from error
    return done.stdout if done.returncode == 0 else ""


def _first_set(*names: str) -> str:
    return next((name for name in names if os.environ.get(name)), "")


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)
