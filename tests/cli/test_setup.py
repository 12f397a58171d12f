"""`sa2va setup` makes an environment that runs the worker, and the configuration file names it afterwards.

The packages are wheels of a few bytes made here; what they stand for is borrowed from the Python that runs the tests.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from sa2va_host.config import load_settings
from sa2va_host.errors import ConfigError
from sa2va_host.machine.distribution import install_arguments, requirements, unmet
from sa2va_plugins.cli.main import main
from sa2va_plugins.cli.setup import write_setting

from .conftest import PROGRAM

OURS = "sa2va_host-7.8.9"
"""A version that no index has."""


@pytest.fixture
def without_uv(tmp_path, monkeypatch):
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Our distribution as an index would have it; `direct_url.json` may be added to its folder."""
    real = metadata.distribution("sa2va-host")
    info = tmp_path / "site" / f"{OURS}.dist-info"
    info.mkdir(parents=True)
    # A checkout that was installed in place has a folder of the older kind too, which may be found first.
    about = real.read_text("METADATA") or real.read_text("PKG-INFO") or ""
    text = re.sub(r"^Version: .*$", "Version: 7.8.9", about, flags=re.MULTILINE)
    (info / "METADATA").write_text(text)
    (info / "entry_points.txt").write_text(real.read_text("entry_points.txt") or "")
    monkeypatch.syspath_prepend(info.parent)
    return info


def test_only_printing_the_commands(distribution, without_uv, tmp_path, capsys):
    folder = tmp_path / "with space"
    arguments = ["--path", str(folder), "--torch", "torch==2.13.0", "--constraint", "pins.txt"]
    assert main(["setup", "--dry-run", *arguments, "--extra", "quantization", "--extra", "flash"]) == 0
    make, install, flash = capsys.readouterr().out.splitlines()
    assert make == f"{sys.executable} -m venv '{folder}'"
    start = f"'{folder / 'bin' / 'python'}' -m pip install --constraint pins.txt "
    assert (
        install
        == f"{start}'sa2va-host[worker,quantization]==7.8.9' torch==2.13.0 setuptools wheel packaging psutil ninja"
    )
    assert flash.startswith(f"{start}--no-build-isolation 'flash-attn>=")
    assert not folder.exists()


def test_as_a_document(distribution, without_uv, tmp_path, capsys):
    folder = tmp_path / "env"
    assert main(["setup", "--dry-run", "--json", "--path", str(folder)]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["commands"][0] == [sys.executable, "-m", "venv", str(folder)]
    assert said.err.splitlines()[1:] == [shlex.join(command) for command in document["commands"]]
    assert (document["worker"], document["config"]) == (None, None)


def test_uv_is_preferred(distribution, tmp_path, monkeypatch, capsys):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["setup", "--dry-run", "--path", str(tmp_path / "env"), "--python", "3.12"]) == 0
    make, install = capsys.readouterr().out.splitlines()
    assert make == f"{uv} venv --allow-existing --python 3.12 {tmp_path / 'env'}"
    python = tmp_path / "env" / "bin" / "python"
    assert install == f"{uv} pip install --torch-backend auto --python {python} 'sa2va-host[worker]==7.8.9'"


def test_an_environment_for_the_code_of_checkpoints(distribution, without_uv, tmp_path, capsys, monkeypatch):
    config = tmp_path / "sa2va.toml"
    config.touch()
    monkeypatch.setenv("SA2VA_CONFIG", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["setup", "remote-code", "--dry-run"]) == 0
    said = capsys.readouterr()
    make, install = said.out.splitlines()
    folder = tmp_path / "data" / "sa2va" / "remote-code"
    assert make == f"{sys.executable} -m venv {folder}"
    assert install == f"{folder}/bin/python -m pip install 'sa2va-host[remote-code]==7.8.9'"
    assert f"An environment for remote-code in {folder}: PyTorch" in said.err
    assert "GB are free" in said.err
    wanted = {each.name: str(each.specifier) for each in requirements("remote-code")}
    assert wanted["transformers"] == "==4.57.*"
    assert {"torchvision", "qwen-vl-utils", "peft", "timm", "einops"} <= set(wanted)
    assert main(["setup", "remote-code", "--extra", "flash"]) == 2
    assert "has no extras" in capsys.readouterr().err
    assert config.read_text() == ""


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        (None, ["sa2va-host[worker]==7.8.9"]),
        ({"url": "file://{here}", "dir_info": {"editable": True}}, ["--editable", "{here}[worker]"]),
        ({"url": "file://{here}", "dir_info": {}}, ["{here}[worker]"]),
        ({"url": "file:///a/b.whl", "archive_info": {}}, ["sa2va-host[worker] @ file:///a/b.whl"]),
        (
            {"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            ["sa2va-host[worker] @ git+https://host/r.git@abc"],
        ),
    ],
)
def test_it_comes_from_where_it_came_from(distribution, tmp_path, origin, arguments):
    (tmp_path / "pyproject.toml").touch()
    if origin is not None:
        text = json.dumps(origin).replace("{here}", str(tmp_path))
        (distribution / "direct_url.json").write_text(text)
    assert install_arguments(["worker"]) == [each.replace("{here}", str(tmp_path)) for each in arguments]


def test_a_source_folder_that_is_gone(distribution, tmp_path):
    (distribution / "direct_url.json").write_text(json.dumps({"url": f"file://{tmp_path}", "dir_info": {}}))
    with pytest.raises(ConfigError, match="which is gone"):
        install_arguments(["worker"])


def test_what_is_missing_and_what_is_too_old(distribution):
    found = unmet(requirements("worker"), {"torch": "2.1.0", "transformers": "99", "accelerate": "99"})
    assert [str(each).split(">")[0] for each in found] == ["safetensors", "sentencepiece", "torch"]
    assert str(found[2]).endswith("(2.1.0 is installed)")
    assert not {each.name for each in requirements()} & {each.name for each in requirements("worker")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'worker_python = "/new/python"\n'),
        ("# mine\ndevice = 'cpu' # why", "# mine\ndevice = 'cpu' # why\nworker_python = \"/new/python\"\n"),
        (
            'worker_python = "/old"  # here\n\n# keep\nkeep_alive=60\n',
            'worker_python = "/new/python"  # here\n\n# keep\nkeep_alive=60\n',
        ),
        (
            "model_folders = [\n  '/a',\n]\r\n",
            "model_folders = [\n  '/a',\n]\r\nworker_python = \"/new/python\"\n",
        ),
    ],
)
def test_one_line_of_the_configuration_changes(tmp_path, before, after):
    file = tmp_path / "sa2va.toml"
    file.write_bytes(before.encode())
    write_setting(file, "worker_python", "/new/python")
    assert file.read_bytes().decode() == after


def test_a_model_gets_a_python_of_its_own(tmp_path):
    file = tmp_path / "sa2va.toml"
    file.write_text("device = 'cpu'  # mine\n[models.small]\nrevision = 'v1'\n")
    for model in ("small", "ORG/NAME"):
        write_setting(file, "worker_python", "/own/python", model)
    settings = load_settings(file=file, model="small")
    assert (settings.worker_python, settings.revision, settings.device) == ("/own/python", "v1", "cpu")
    assert load_settings(file=file, model="ORG/NAME").worker_python == "/own/python"
    assert load_settings(file=file, model="another").worker_python == ""
    assert file.read_text().startswith("device = 'cpu'  # mine\n")


def test_a_configuration_file_that_is_a_link_or_missing(tmp_path):
    (tmp_path / "link.toml").symlink_to(tmp_path / "folder" / "real.toml")
    write_setting(tmp_path / "link.toml", "worker_python", "/new")
    assert (tmp_path / "link.toml").is_symlink()
    assert (tmp_path / "folder" / "real.toml").read_text() == 'worker_python = "/new"\n'


def test_a_configuration_file_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "sa2va.toml"
    file.write_bytes(b"\xef\xbb\xbfdevice = 'cpu'\r\n")
    write_setting(file, "worker_python", "/new")
    assert load_settings(environment={}, file=file).worker_python == "/new"
    assert load_settings(environment={}, file=file).device == "cpu"


def test_a_folder_with_something_else_in_it(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert main(["setup", "--path", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"sa2va: {tmp_path} is there and is no virtual environment.")


def test_a_command_that_fails(tmp_path, without_uv, capfd, monkeypatch):
    config = tmp_path / "sa2va.toml"
    config.touch()
    monkeypatch.setenv("SA2VA_CONFIG", str(config))
    assert main(["setup", "--path", str(tmp_path / "env"), "--python", "/bin/false"]) == 1
    assert "That command ended with exit code 1." in capfd.readouterr().err
    assert config.read_text() == ""


@pytest.mark.parametrize("spec", ["torch = 2", "numpy==2.0", ""])
def test_another_thing_than_torch(capsys, spec):
    assert main(["setup", "--torch", spec]) == 2
    assert "is no version of PyTorch" in capsys.readouterr().err


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """The smallest wheel that pip installs (PyPA's binary distribution format)."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


@pytest.fixture
def index(distribution, tmp_path):
    """A folder of wheels that satisfies our distribution; torch brings everything the tests' Python has."""
    pytest.importorskip("transformers")
    folder = tmp_path / "wheels"
    folder.mkdir()
    borrowed = "".join(f"{path}\n" for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    for requirement in requirements() + requirements("worker"):
        files = {"borrowed.pth": borrowed} if requirement.name == "torch" else {}
        make_wheel(folder, requirement.name, metadata.version(requirement.name), files)
    text = (distribution / "METADATA").read_text()
    make_wheel(folder, "sa2va-host", "7.8.9", {f"{OURS}.dist-info/METADATA": text})
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way(index, distribution, tmp_path):
    """The environment is made, it can run the worker, the settings name it, and a second time nothing is to be done."""
    config = tmp_path / "sa2va.toml"
    config.write_text("device = 'cpu'  # of this machine\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "SA2VA_"))},
        "PATH": "/usr/bin:/bin",  # without uv
        "PYTHONPATH": str(distribution.parent),
        "SA2VA_CONFIG": str(config),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }

    def setup(*arguments):
        return subprocess.run(
            [*PROGRAM, "setup", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    wheel = next(index.glob("accelerate-*"))
    wheel.rename(tmp_path / wheel.name)
    failed = setup("--path", str(tmp_path / "env"))
    assert failed.returncode == 1
    assert "accelerate" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("sa2va: That command ended with exit code 1.")
    assert "worker_python" not in config.read_text()

    shutil.move(tmp_path / wheel.name, wheel)
    done = setup("--path", str(tmp_path / "env"))
    assert done.returncode == 0, done.stderr
    python = tmp_path / "env" / "bin" / "python"
    assert f"The worker can run in {python} (Python " in done.stdout
    assert config.read_text() == f"device = 'cpu'  # of this machine\nworker_python = \"{python}\"\n"

    again = setup()
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"The worker has all it needs in {python} (Python ")
    assert again.stderr == ""
