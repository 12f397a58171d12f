"""`sa2va setup`: an environment of its own for the worker, where only the light host is installed; and one for
checkpoints that bring their own code, which wants older libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.machine.commands import pip_command, sa2va_command

from . import options
from .environment import Environment, choose_torch, execution_environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from sa2va_host.machine.interpreters import Interpreter
    from sa2va_host.machine.nvidia import Driver

    from .environment import Torch

EXAMPLES = """examples:
  sa2va setup
  sa2va setup --dry-run
  sa2va setup --path ~/sa2va-worker --cuda --torch torch==2.13.0
  sa2va setup remote-code --model ORG/NAME

It needs the network, and 1.5 GB of disk for PyTorch on the CPU or 5 GB for
CUDA. Run it again to repair an environment or to bring it up to date. pip and
uv read their own variables and files as ever (a proxy, a cache, an index).
Where you have set an index of your own (PIP_INDEX_URL, index-url, no-index,
UV_DEFAULT_INDEX), PyTorch comes from there too; else its builds come from
PyTorch's own index.

`remote-code` is for checkpoints that bring their own code: it has
transformers 4.57 and what such code imports. With --model, that model runs
there; --trust-remote-code still has to be given.
"""
KINDS = ("worker", "remote-code")
"""The extras of ours that an environment can be made of."""
EXTRAS = ("quantization", "flash")
SIZE_WITH_CUDA, SIZE_WITHOUT = 5e9, 1.5e9
"""Bytes that an environment takes, measured on Linux with torch 2.11 for CUDA 13.0 and torch 2.13 without."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "setup",
        help="make an environment for the worker",
        description="Make a virtual environment with all that the worker needs, and set worker_python to it in the"
        " configuration file. Does nothing when that is there already. Uses uv (0.7.14 or newer) where it is"
        " installed (as a program or a module), else venv, else virtualenv, and pip.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "kind",
        nargs="?",
        choices=KINDS,
        default=KINDS[0],
        help="what for: our own models, or the code that checkpoints bring (default: %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="set worker_python for this model alone, by the name --model takes"
    )
    parser.add_argument(
        "--path", type=Path, metavar="DIR", help="where to make it (default: in the user's data folder)"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PYTHON",
        help="the Python to make it of (default: this one)",
    )
    build = parser.add_mutually_exclusive_group()
    build.add_argument(
        "--cpu",
        dest="build",
        action="store_const",
        const="cpu",
        help="take the PyTorch for CPUs, which is small (default where there is no NVIDIA GPU)",
    )
    build.add_argument(
        "--cuda",
        dest="build",
        action="store_const",
        const="cuda",
        help="take the PyTorch for CUDA that the driver can run, and bitsandbytes (default where there is an NVIDIA"
        " GPU)",
    )
    parser.add_argument("--torch", type=_torch, metavar="SPEC", help="which PyTorch, such as torch==2.13.0")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=EXTRAS,
        help="what to install besides; may be repeated",
    )
    parser.add_argument(
        "--constraint", type=Path, metavar="FILE", help="pinned versions, a file as pip reads it"
    )
    parser.add_argument("--no-config", action="store_true", help="leave the configuration file alone")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings
    from sa2va_host.errors import InvalidInput
    from sa2va_host.machine.distribution import WORKER, requirements
    from sa2va_host.machine.nvidia import find_driver

    if arguments.extra and arguments.kind != WORKER:
        raise InvalidInput(f"The environment {arguments.kind} has no extras.", advice="Leave --extra out.")
    settings, driver = load_settings(model=arguments.model), find_driver()
    environment = Environment(_folder(arguments.path, arguments.kind), arguments.kind)
    torch = choose_torch(arguments.build, driver)
    if torch.build == "cpu" and "flash" in arguments.extra:
        raise InvalidInput(f"flash-attn needs a PyTorch for CUDA: {torch.reason}.", advice="Leave flash out.")
    python = settings.worker_python
    if arguments.kind != WORKER and not arguments.model:
        python = str(environment.interpreter)
    wanted = requirements(*arguments.extra) if arguments.extra else []
    wanted += [arguments.torch] if arguments.torch else []
    present = None if arguments.path else _present(python, arguments.kind, wanted)
    # What makes large checkpoints fit belongs to a GPU.
    quantizes = torch.build == "cuda" and arguments.kind == WORKER
    lacks = present.missing(requirements("quantization")) if present and quantizes else []
    if present and torch.suits(present, driver) and not (lacks and environment.has(present)):
        _say(
            arguments,
            f"The worker has all it needs in {describe(present)}. To make another environment, give --path.",
        )
        if lacks:
            install = pip_command(
                [each.requirement for each in lacks], present.executable, has_pip=present.has_pip
            )
            _say(arguments, f"For 8 and 4 bit it lacks {', '.join(map(str, lacks))}. Run: {install}")
        return _end(arguments, [], torch, present)
    if quantizes and "quantization" not in arguments.extra:
        arguments.extra = [*arguments.extra, "quantization"]
    return _make(arguments, environment, torch, driver)


def _make(
    arguments: argparse.Namespace, environment: Environment, torch: Torch, driver: Driver | None
) -> int:
    """Make the environment, or bring it up to date, and have the settings name it."""
    from sa2va_host.machine.commands import joined
    from sa2va_host.machine.distribution import requirements

    print(_announcement(environment, torch), file=sys.stderr)
    there = _inspected(environment)
    other = bool(there and there.versions.get("torch") and not torch.suits(there, driver))
    commands = list(
        environment.commands(
            arguments.python,
            torch,
            arguments.torch,
            arguments.extra,
            arguments.constraint,
            other_build=other,
        )
    )
    if arguments.dry_run:
        for command in commands:
            _say(arguments, joined(command))
        return _end(arguments, commands, torch)
    environment.begin()
    for command in commands:
        _say(arguments, joined(command))
        _execute(command)
    wanted = requirements(*arguments.extra) if arguments.extra else []
    made = _checked(environment, [*wanted, *([arguments.torch] if arguments.torch else [])])
    environment.finish()
    _say(arguments, f"The worker can run in {describe(made)}.")
    if not torch.suits(made, driver):
        _warn_of(made, torch)
    return _end(arguments, commands, torch, made, _give(arguments, environment))


def _warn_of(made: Interpreter, torch: Torch) -> None:
    """Say that another PyTorch has come than was chosen: an index or a constraint of the user's own decides that."""
    has = f"for CUDA {made.cuda}" if made.cuda else "for the CPU, so the worker will not use the GPU"
    wanted = "CUDA" if torch.build == "cuda" else "the CPU"
    print(
        f"warning: a PyTorch for {wanted} was to be installed ({torch.reason}), and torch"
        f" {made.versions.get('torch')} is one {has}. Your own index or constraints brought it: leave them out (PIP_*,"
        " UV_*, --constraint), or name a build with --torch, such as torch==2.13.0+cu130.",
        file=sys.stderr,
    )


def _checked(environment: Environment, wanted: Sequence[Requirement]) -> Interpreter:
    """What has been made. Raises `Sa2VAError` where the worker cannot run in it."""
    from sa2va_host.errors import Sa2VAError
    from sa2va_host.machine.interpreters import inspect

    made = inspect(str(environment.interpreter), environment.kind)
    if problems := made.problems(wanted):
        raise Sa2VAError(f"The worker cannot run in {environment.folder}: {', '.join(problems)}.")
    return made


def _give(arguments: argparse.Namespace, environment: Environment) -> Path | None:
    """Have the settings name the environment; the file that does, or None where the user is to do that."""
    from sa2va_host.config import settings_file
    from sa2va_host.machine.distribution import WORKER

    file = settings_file()
    if arguments.kind != WORKER and not arguments.model:
        again = sa2va_command("setup", arguments.kind, "--model")
        _say(arguments, f"Give it to a model with `{again} ORG/NAME`, or in {file}:")
        _say(arguments, f'[models."ORG/NAME"]\nworker_python = {json.dumps(str(environment.interpreter))}')
        return None
    if arguments.no_config:
        return None
    write_setting(file, "worker_python", str(environment.interpreter), arguments.model)
    of_model = f" for {arguments.model}" if arguments.model else ""
    _say(arguments, f"worker_python is set in {file}{of_model}.")
    if os.environ.get("SA2VA_WORKER_PYTHON"):
        print("Unset SA2VA_WORKER_PYTHON: it comes before the file.", file=sys.stderr)
    return file


def _say(arguments: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)


def _end(
    arguments: argparse.Namespace,
    commands: list[list[str]],
    torch: Torch,
    made: Interpreter | None = None,
    file: Path | None = None,
) -> int:
    if arguments.json:
        print(document(commands, torch, made, file))
    return 0


def document(
    commands: list[list[str]], torch: Torch, interpreter: Interpreter | None, file: Path | None
) -> str:
    """What `--json` prints: the commands of this set-up, which PyTorch it chose (`cpu`, `cuda`), the worker's Python
    (null after a dry run), and the configuration file that names it now (null where none was changed).
    """
    found = interpreter and {
        "executable": interpreter.executable,
        "python": interpreter.python,
        "versions": interpreter.versions,
        "devices": interpreter.devices,
    }
    return json.dumps(
        {"commands": commands, "torch": torch.build, "worker": found, "config": file and str(file)}, indent=2
    )


def describe(interpreter: Interpreter) -> str:
    """`/home/me/.venv/bin/python (Python 3.12.1, torch 2.13.0, transformers 5.23.0; cuda:0 NVIDIA H200)`."""
    versions = [f"{name} {interpreter.versions.get(name)}" for name in ("torch", "transformers")]
    devices = ", ".join(interpreter.devices) or "no GPU"
    return f"{interpreter.executable} (Python {', '.join([interpreter.python, *versions])}; {devices})"


def write_setting(file: Path, name: str, value: str, model: str | None = None) -> None:
    """Set one value in a TOML file, which is made if there is none, or in the file's table of one model.

    Whatever else is in it stays as it is.
    """
    import tomlkit

    from sa2va_host.config import settings_text
    from sa2va_host.media import write_whole

    target = file.resolve()  # a link into somebody's collection of such files stays a link
    document = tomlkit.parse(settings_text(target)) if target.exists() else tomlkit.document()
    table: Any = document
    for part in () if model is None else ("models", model):
        if part not in table:
            table[part] = tomlkit.table(is_super_table=part == "models")
        table = table[part]
    table[name] = value
    write_whole(target, lambda stream: stream.write(tomlkit.dumps(document).encode("utf-8")))


def _announcement(environment: Environment, torch: Torch) -> str:
    """What is about to be made, and how much of the disk it takes."""
    existing = next(path for path in (environment.folder, *environment.folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    size = SIZE_WITH_CUDA if torch.build == "cuda" else SIZE_WITHOUT
    again = (
        " The last set-up there did not come to its end, so it is made anew."
        if environment.is_interrupted
        else ""
    )
    return (
        f"An environment for {environment.kind} in {environment.folder}: PyTorch for"
        f" {'CUDA' if torch.build == 'cuda' else 'the CPU'} ({torch.reason}), transformers and what they need. It takes"
        f" about {size / 1e9:g} GB; {free / 1e9:.0f} GB are free.{again}"
    )


def _inspected(environment: Environment) -> Interpreter | None:
    """What is in the environment already, if it can be asked."""
    from sa2va_host.errors import WorkerStartFailed
    from sa2va_host.machine.interpreters import inspect

    if not environment.interpreter.exists():
        return None
    try:
        return inspect(str(environment.interpreter), environment.kind, tried=False)
    except WorkerStartFailed:
        return None


def _present(python: str, kind: str, wanted: Sequence[Requirement]) -> Interpreter | None:
    """What would run the worker now, if it can."""
    from sa2va_host.errors import WorkerStartFailed
    from sa2va_host.machine.interpreters import inspect

    try:
        found = inspect(python, kind)
    except WorkerStartFailed:
        return None
    if Environment(Path(found.executable).parent.parent, kind).is_interrupted:
        return None
    return found if found.is_ours and not found.problems(wanted) else None


def _folder(path: Path | None, kind: str) -> Path:
    """Where the environment goes, absolute. Raises `InvalidInput` when something else is there."""
    from platformdirs import user_data_path

    from sa2va_host.errors import InvalidInput

    folder = (path or user_data_path("sa2va", appauthor=False) / kind).expanduser().absolute()
    occupied = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if occupied and not ((folder / "pyvenv.cfg").is_file() or Environment(folder, kind).is_interrupted):
        raise InvalidInput(f"{folder} is there and is no virtual environment.", advice="Give another --path.")
    return folder


def _execute(command: Sequence[str]) -> None:
    import subprocess

    from sa2va_host.errors import Sa2VAError

    # What it says goes to stderr: stdout is for the commands and their outcome.
    done = subprocess.run(command, stdout=sys.stderr, env=execution_environment(), check=False)
    if done.returncode:
        raise Sa2VAError(
            f"That command ended with exit code {done.returncode}.",
            advice="Its reason stands above. The environment is not used; run the same command again to repair it.",
        )


def _torch(text: str) -> Requirement:
    """A requirement for PyTorch; for argparse."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        requirement = Requirement("nothing")
    if requirement.name != "torch":
        raise argparse.ArgumentTypeError(f"{text!r} is no version of PyTorch; write torch==2.13.0")
    return requirement
