"""`sa2va setup`: an environment of its own for the worker, where only the light host is installed; and one for
checkpoints that bring their own code, which wants older libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from sa2va_host.machine.interpreters import Interpreter

EXAMPLES = """examples:
  sa2va setup
  sa2va setup --dry-run
  sa2va setup --path ~/sa2va-worker --torch torch==2.13.0 --extra quantization
  sa2va setup remote-code --model ORG/NAME

It needs the network and several gigabytes. Done again, it goes on where it
ended, or brings the environment up to date. What pip and uv read from their
own variables and files (an index, a proxy, a cache) holds here too.

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
        " installed, which picks the PyTorch for this machine's GPU, else venv and pip.",
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
    from sa2va_host.config import load_settings, settings_file
    from sa2va_host.errors import InvalidInput, Sa2VAError
    from sa2va_host.machine.distribution import requirements
    from sa2va_host.machine.interpreters import WORKER, inspect

    if arguments.extra and arguments.kind != WORKER:
        raise InvalidInput(f"The environment {arguments.kind} has no extras.", advice="Leave --extra out.")

    def say(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    def end(commands: list[list[str]], made: Interpreter | None = None, file: Path | None = None) -> int:
        if arguments.json:
            print(document(commands, made, file))
        return 0

    settings, file = load_settings(model=arguments.model), settings_file()
    environment = Environment(_folder(arguments.path, arguments.kind), arguments.kind)
    wanted = requirements(*arguments.extra) if arguments.extra else []
    wanted += [arguments.torch] if arguments.torch else []
    python = settings.worker_python
    if arguments.kind != WORKER and not arguments.model:
        python = str(environment.interpreter)
    if arguments.path is None and (present := _present(python, arguments.kind, wanted)):
        say(f"The worker has all it needs in {describe(present)}. To make another environment, give --path.")
        return end([], present)
    print(_announcement(environment), file=sys.stderr)
    commands = list(
        environment.commands(arguments.python, arguments.torch, arguments.extra, arguments.constraint)
    )
    for command in commands:
        say(shlex.join(command))
        if not arguments.dry_run:
            _execute(command)
    if arguments.dry_run:
        return end(commands)
    made = inspect(str(environment.interpreter), arguments.kind)
    if problems := made.problems(wanted):
        raise Sa2VAError(f"The worker cannot run in {environment.folder}: {', '.join(problems)}.")
    say(f"The worker can run in {describe(made)}.")
    if arguments.kind != WORKER and not arguments.model:
        say(f"Give it to a model with `sa2va setup {arguments.kind} --model ORG/NAME`, or in {file}:")
        say(f'[models."ORG/NAME"]\nworker_python = "{environment.interpreter}"')
        return end(commands, made)
    if not arguments.no_config:
        write_setting(file, "worker_python", str(environment.interpreter), arguments.model)
        say(f"worker_python is set in {file}{f' for {arguments.model}' if arguments.model else ''}.")
        if os.environ.get("SA2VA_WORKER_PYTHON"):
            print("Unset SA2VA_WORKER_PYTHON: it comes before the file.", file=sys.stderr)
    return end(commands, made, None if arguments.no_config else file)


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the commands that make it or bring it up to date."""

    folder: Path
    kind: str
    """One of `KINDS`."""

    @property
    def interpreter(self) -> Path:
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def commands(
        self, python: str, torch: Requirement | None, extras: Sequence[str], constraint: Path | None
    ) -> Iterator[list[str]]:
        """In the order in which they are to be run; each may be run again."""
        from sa2va_host.machine.distribution import install_arguments, requirements

        uv = shutil.which("uv")
        if uv:
            yield [uv, "venv", "--allow-existing", "--python", python, str(self.folder)]
            install = [uv, "pip", "install", "--torch-backend", "auto", "--python", str(self.interpreter)]
        else:
            yield [python, "-m", "venv", str(self.folder)]
            install = [str(self.interpreter), "-m", "pip", "install"]
        install += ["--constraint", str(constraint)] if constraint else []
        packages = install_arguments([self.kind, *(extra for extra in extras if extra != "flash")])
        packages += [str(torch)] if torch else []
        if "flash" in extras:
            # It is built with the very PyTorch that it is to run with, so everything else has to be there before
            # (flash-attn's README, Installation).
            yield [*install, *packages, "setuptools", "wheel", "packaging", "psutil", "ninja"]
            flash = (f"{each.name}{each.specifier}" for each in requirements("flash"))
            yield [*install, "--no-build-isolation", *flash]
        else:
            yield [*install, *packages]


def document(commands: list[list[str]], interpreter: Interpreter | None, file: Path | None) -> str:
    """What `--json` prints: the commands of this set-up, the worker's Python (null after a dry run), and the
    configuration file that names it now (null where none was changed).
    """
    found = interpreter and {
        "executable": interpreter.executable,
        "python": interpreter.python,
        "versions": interpreter.versions,
        "devices": interpreter.devices,
    }
    return json.dumps({"commands": commands, "worker": found, "config": file and str(file)}, indent=2)


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

    from sa2va_host.media import write_whole

    target = file.resolve()  # a link into somebody's collection of such files stays a link
    document = tomlkit.parse(target.read_bytes()) if target.exists() else tomlkit.document()
    table: Any = document
    for part in () if model is None else ("models", model):
        if part not in table:
            table[part] = tomlkit.table(is_super_table=part == "models")
        table = table[part]
    table[name] = value
    write_whole(target, lambda stream: stream.write(tomlkit.dumps(document).encode("utf-8")))


def _announcement(environment: Environment) -> str:
    """What is about to be made, and how much of the disk it takes."""
    existing = next(path for path in (environment.folder, *environment.folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return (
        f"An environment for {environment.kind} in {environment.folder}: PyTorch, transformers and what they need. It"
        f" takes about {SIZE_WITH_CUDA / 1e9:g} GB with a PyTorch for CUDA, {SIZE_WITHOUT / 1e9:g} GB without;"
        f" {free / 1e9:.0f} GB are free."
    )


def _present(python: str, kind: str, wanted: Sequence[Requirement]) -> Interpreter | None:
    """What would run the worker now, if it can."""
    from sa2va_host.errors import WorkerStartFailed
    from sa2va_host.machine.interpreters import inspect

    try:
        found = inspect(python, kind)
    except WorkerStartFailed:
        return None
    return found if found.is_ours and not found.problems(wanted) else None


def _folder(path: Path | None, kind: str) -> Path:
    """Where the environment goes, absolute. Raises `InvalidInput` when something else is there."""
    from platformdirs import user_data_path

    from sa2va_host.errors import InvalidInput

    folder = (path or user_data_path("sa2va", appauthor=False) / kind).expanduser().absolute()
    occupied = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if occupied and not (folder / "pyvenv.cfg").is_file():
        raise InvalidInput(f"{folder} is there and is no virtual environment.", advice="Give another --path.")
    return folder


def _execute(command: Sequence[str]) -> None:
    import subprocess

    from sa2va_host.errors import Sa2VAError
    from sa2va_host.machine.worker_program import clean_environment

    # What it says goes to stderr: stdout is for the commands and their outcome.
    done = subprocess.run(command, stdout=sys.stderr, env=clean_environment(os.environ), check=False)
    if done.returncode:
        raise Sa2VAError(
            f"That command ended with exit code {done.returncode}.",
            advice="Mend what it says above, then run `sa2va setup` again; it goes on from there.",
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
