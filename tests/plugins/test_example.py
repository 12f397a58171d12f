"""A third party's package, installed for real into an interpreter of its own, adds one of everything."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host.plugins import hookspecs

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has what this one has, and the example package."""
    home = tmp_path_factory.mktemp("example")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    interpreter = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    found = sysconfig.get_path("purelib", vars={"base": str(home / "venv")})
    here = [*site.getsitepackages(), str(HERE.parents[1])]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in here]
    Path(found, "shared.pth").write_text("\n".join(lines) + "\n")
    source = shutil.copytree(HERE / "example", home / "source")
    install = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", "pip", "--python", interpreter, *install, source], check=True)
    return interpreter


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the example's family."""
    folder = tmp_path_factory.mktemp("models") / "bright-100"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bright", "level": 100}))
    return folder


@pytest.fixture
def sa2va(python: Path, tmp_path: Path) -> Iterator[Command]:
    """The command of that interpreter; its workers are stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="sa2va-") as run_dir:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SA2VA_")},
            "SA2VA_RUN_DIR": str(Path(run_dir) / "run"),
            "XDG_CONFIG_HOME": str(tmp_path),
        }

        def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
            program = "from sa2va_plugins.command import main; raise SystemExit(main())"
            return subprocess.run(
                [python, "-c", program, *map(str, arguments)],
                env={**environment, **more},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        yield run
        run("stop", "--all", "--force")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Dark, with a bright square."""
    pixels = np.full((64, 64, 3), 20, np.uint8)
    pixels[16:48, 16:48] = 220
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def test_its_front_end_is_a_command(sa2va: Command) -> None:
    done = sa2va("greet", "you", "there")
    assert (done.returncode, done.stdout) == (0, "hello you there\n")


def test_it_can_be_switched_off(sa2va: Command) -> None:
    done = sa2va("greet", SA2VA_DISABLE_PLUGINS="example")
    assert done.returncode == 2
    assert "greet" in done.stderr


def test_its_model_family_serves_its_checkpoints(sa2va: Command, checkpoint: Path, picture: Path) -> None:
    done = sa2va("segment", picture, "--prompt", "what is bright", "--model", checkpoint, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["results"][0]
    assert found["text"] == "It is [SEG]."
    x0, y0, x1, y1 = found["objects"][0]["box"]
    assert max(abs(x0 - 16), abs(y0 - 16), abs(x1 - 48), abs(y1 - 48)) <= 2
    words = sa2va("chat", "--prompt", "what do you do?", "--model", checkpoint)
    assert words.stdout == "I look for what is brighter than 100.\n"


def test_its_model_is_listed_among_those_that_can_be_had(sa2va: Command) -> None:
    listed = json.loads(sa2va("models", "--all", "--json").stdout)["absent"]
    (own,) = [each for each in listed if each["family"] == "bright"]
    assert (own["name"], own["download"], own["licence"]) == ("Org/Bright-100", 100, "MIT")
    # Of the environment that it was asked in.
    assert own["command"].endswith(" pull Org/Bright-100")


PROCESS = """
import json, sys
import numpy as np
from sa2va_host import InvalidInput, Sa2VA
model, picture = sys.argv[1:]
with Sa2VA(model) as sa:
    given = np.linspace(0, 1, 2 * 64 * 64, dtype=np.float32).reshape(2, 64, 64)
    here = sa.process(picture, given, "contrast", {"factor": 4})
    assert not sa.status(), "a processor of the host starts no worker"
    there = sa.process(picture, given, "contrast-there", {"factor": 4})
    assert sa.status()
    np.testing.assert_array_equal(here, np.clip((given - 0.5) * 4 + 0.5, 0, 1))
    np.testing.assert_array_equal(here, there)
    assert sa.process(picture, given[:0], "contrast-there").shape == (0, 64, 64)
    errors = []
    for name, options in (("nothing", {}), ("contrast", {"facto": 1}), ("contrast-there", {"factor": "much"})):
        try:
            sa.process(picture, given, name, options)
        except InvalidInput as error:
            errors.append(str(error))
    print(json.dumps(errors))
"""


def test_its_processors_work_on_either_side(
    python: Path, sa2va: Command, checkpoint: Path, picture: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        environment = {**os.environ, "SA2VA_RUN_DIR": str(Path(folder) / "run")}
        done = subprocess.run(
            [python, "-c", PROCESS, checkpoint, picture],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        sa2va("stop", "--all", SA2VA_RUN_DIR=environment["SA2VA_RUN_DIR"])
    assert done.returncode == 0, done.stderr
    unknown, misspelt, wrong = json.loads(done.stdout)
    assert unknown.startswith("There is no mask processor 'nothing'. There is: ")
    assert misspelt == "The mask processor 'contrast' has no option 'facto'. It has: factor."
    assert wrong == "The option 'factor' of the mask processor 'contrast-there' is a number, not 'much'."


def test_the_page_shows_the_code_of_the_example() -> None:
    sources = [
        path.read_text(encoding="utf-8") for path in sorted((HERE / "example").rglob("*.*")) if path.is_file()
    ]
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        assert any(block in source for source in sources), block


def test_the_page_lists_every_hook_and_field() -> None:
    hooks = [
        name
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if hasattr(function, f"{hookspecs.PROJECT}_spec")
    ]
    assert sorted(re.findall(r"^\| `(register_\w+)`", PAGE, re.MULTILINE)) == sorted(hooks)
    for kind in (
        hookspecs.FrontEnd,
        hookspecs.ModelFamily,
        hookspecs.MaskProcessor,
        hookspecs.KnownModel,
    ):
        assert f"`{kind.__name__}({', '.join(field.name for field in fields(kind))})`" in PAGE
