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
from importlib import metadata

import pytest

import sa2va_plugins.cli.environment as making
from sa2va_host.config import load_settings
from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.machine.distribution import install_arguments, requirements, unmet
from sa2va_host.machine.interpreters import Interpreter
from sa2va_host.machine.nvidia import Driver, Gpu
from sa2va_plugins.cli.environment import Environment, Tools, choose_torch, execution_environment
from sa2va_plugins.cli.main import main
from sa2va_plugins.cli.setup import write_setting
from tests.wheels import make_wheel

from .conftest import PROGRAM

OURS = "sa2va_host-7.8.9"
"""A version that no index has."""


@pytest.fixture(autouse=True)
def _default_index(monkeypatch):
    """No index of anybody's own, which would decide where PyTorch comes from."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def without_uv(tmp_path, monkeypatch):
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(making, "_MODULES", making._MODULES.replace('"uv", ', ""))


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
    extras = ["--extra", "quantization", "--extra", "flash"]
    assert main(["setup", "--dry-run", "--cuda", *arguments, *extras]) == 0
    # The driver of the machine that runs this decides whether PyPI's PyTorch will do.
    make, *_, install, flash = capsys.readouterr().out.splitlines()
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
    assert document["torch"] in ("cpu", "cuda")


def test_uv_is_preferred(distribution, tmp_path, monkeypatch, capsys):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["setup", "--dry-run", "--cpu", "--path", str(tmp_path / "env"), "--python", "3.12"]) == 0
    make, torch, install = capsys.readouterr().out.splitlines()
    assert make == f"{uv} venv --allow-existing --python 3.12 {tmp_path / 'env'}"
    python = tmp_path / "env" / "bin" / "python"
    assert torch == f"{uv} pip install --python {python} --torch-backend cpu 'torch>=2.6'"
    assert install == f"{uv} pip install --python {python} 'sa2va-host[worker]==7.8.9'"


def write_uv(folder, version):
    """A Python that brings uv as a module, as the one of ComfyUI's Manager does; with a real venv hidden."""
    package = folder / "uv"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"print('uv {version} (a build)')\n")
    return bare_python(folder, "venv", "virtualenv")


def test_uv_may_be_a_module_of_the_python_as_in_a_portable_one(
    distribution, without_uv, tmp_path, monkeypatch, capsys
):
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    python, folder = write_uv(tmp_path, "0.9.1"), tmp_path / "env"
    assert main(["setup", "--dry-run", "--cpu", "--path", str(folder), "--python", str(python)]) == 0
    make, *install = capsys.readouterr().out.splitlines()
    assert make == f"{python} -m uv venv --allow-existing --python {python} {folder}"
    assert all(
        line.startswith(f"{python} -m uv pip install --python {folder}/bin/python ") for line in install
    )


@pytest.mark.parametrize("as_program", [True, False])
def test_a_uv_that_knows_no_builds_of_pytorch_is_left_alone(
    distribution, without_uv, tmp_path, monkeypatch, capsys, as_program
):
    monkeypatch.undo()
    python = write_uv(tmp_path, "0.7.13")
    program = tmp_path / "bin" / "uv"
    if as_program:
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'uv 0.7.13 (a build)'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert (
        main(["setup", "--dry-run", "--cpu", "--path", str(tmp_path / "env"), "--python", str(python)]) == 0
    )
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{python} -m pip install --upgrade --target ")


def test_uv_does_not_know_the_index_of_pip(distribution, tmp_path, monkeypatch, capsys):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    assert main(["setup", "--dry-run", "--path", str(tmp_path / "env")]) == 0
    make, install = capsys.readouterr().out.splitlines()
    assert make == f"{sys.executable} -m venv {tmp_path / 'env'}"
    assert str(uv) not in install


BACKEND = "--torch-backend cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI has the build for CPUs")
def test_the_build_for_cpus_is_installed_by_uv_which_knows_where_it_is(
    distribution, without_uv, tmp_path, capsys
):
    folder = tmp_path / "env"
    assert main(["setup", "--dry-run", "--cpu", "--path", str(folder), "--torch", "torch==2.13.0"]) == 0
    said = capsys.readouterr()
    _, uv, torch, install = said.out.splitlines()
    assert uv == f"{folder}/bin/python -m pip install uv"
    assert torch == f"{folder}/bin/uv pip install --python {folder}/bin/python {BACKEND} torch==2.13.0"
    assert install == f"{folder}/bin/python -m pip install 'sa2va-host[worker]==7.8.9' torch==2.13.0"
    assert "PyTorch for the CPU (--cpu asks for it)" in said.err
    assert "about 1.5 GB" in said.err


@pytest.mark.parametrize(
    "own",
    [
        {"PIP_INDEX_URL": "https://packages.example/simple"},
        {"PIP_NO_INDEX": "1"},
        {"PIP_CONFIG_FILE": "[global]\nindex-url = https://packages.example/simple\n"},
        {"PIP_CONFIG_FILE": "[install]\nno-index = true\n"},
    ],
)
def test_an_index_of_the_users_own_has_pytorch_too(
    distribution, without_uv, tmp_path, monkeypatch, capsys, own
):
    for name, value in own.items():
        if name == "PIP_CONFIG_FILE":
            (tmp_path / "pip.conf").write_text(value)
        monkeypatch.setenv(name, str(tmp_path / "pip.conf") if name == "PIP_CONFIG_FILE" else value)
    assert main(["setup", "--dry-run", "--cpu", "--path", str(tmp_path / "env")]) == 0
    _, install = capsys.readouterr().out.splitlines()
    assert "torch-backend" not in install


def test_a_further_index_and_one_that_is_off_are_no_index_of_their_own(
    distribution, without_uv, tmp_path, monkeypatch, capsys
):
    (tmp_path / "pip.conf").write_text("[global]\nextra-index-url = https://more.example\nno-index = false\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert main(["setup", "--dry-run", "--cpu", "--path", str(tmp_path / "env")]) == 0
    assert (BACKEND in capsys.readouterr().out) == (sys.platform == "linux")


def driver(cuda):
    return Driver("550.54", cuda, (Gpu("NVIDIA H200", 150_000_000_000, 149_000_000_000),))


@pytest.mark.parametrize(
    ("asked", "found", "platform", "build", "backend"),
    [
        (None, None, "linux", "cpu", "cpu"),
        (None, Driver("550.54", "12.4", ()), "linux", "cpu", "cpu"),
        (None, driver("13.0"), "linux", "cuda", ""),
        (None, driver("13.1"), "linux", "cuda", ""),
        (None, driver("12.9"), "linux", "cuda", "cu128"),
        (None, driver("12.4"), "linux", "cuda", "cu126"),
        (None, driver("11.8"), "linux", "cuda", "cu118"),
        (None, driver("11.4"), "linux", "cpu", "cpu"),
        ("cpu", driver("13.0"), "linux", "cpu", "cpu"),
        ("cuda", None, "linux", "cuda", ""),
        (None, None, "win32", "cpu", ""),
        (None, driver("13.0"), "win32", "cuda", "cu130"),
        ("cuda", None, "win32", "cuda", "cu130"),
        (None, None, "darwin", "cpu", ""),
    ],
)
def test_the_pytorch_that_suits_the_machine(asked, found, platform, build, backend):
    torch = choose_torch(asked, found, platform)
    assert (torch.build, torch.backend) == (build, backend)
    assert torch.reason


@pytest.mark.parametrize(
    ("found", "platform", "words"),
    [(driver("11.4"), "linux", "older than CUDA 11.8"), (None, "darwin", "no PyTorch for CUDA on macOS")],
)
def test_a_pytorch_that_there_is_none_of(found, platform, words):
    with pytest.raises(InvalidInput, match=words):
        choose_torch("cuda", found, platform)


def interpreter(**more):
    return Interpreter(executable="python", python="3.12.1", versions={"torch": "2"}, error="", **more)


@pytest.mark.parametrize(
    ("asked", "gpu", "installed", "suits"),
    [
        (None, None, interpreter(), True),
        (None, None, interpreter(cuda="13.0"), True),
        ("cpu", None, interpreter(cuda="13.0"), False),
        (None, driver("12.4"), interpreter(), False),
        (None, driver("12.4"), interpreter(cuda="13.0"), False),
        (None, driver("12.4"), interpreter(cuda="12.8"), True),
        (None, driver("13.0"), interpreter(hip="6", devices=("cuda:0 Radeon",)), True),
        ("cuda", None, interpreter(), False),
    ],
)
def test_whether_the_pytorch_that_is_there_will_do(asked, gpu, installed, suits):
    assert choose_torch(asked, gpu, "linux").suits(installed, gpu) is suits


def test_bitsandbytes_comes_with_cuda(distribution, without_uv, tmp_path, capsys):
    for build, extra in (("--cuda", "worker,quantization"), ("--cpu", "worker")):
        assert main(["setup", "--dry-run", build, "--path", str(tmp_path / "env")]) == 0
        assert f"sa2va-host[{extra}]==7.8.9" in capsys.readouterr().out
    assert main(["setup", "--dry-run", "--cpu", "--cuda"]) == 2
    capsys.readouterr()
    assert main(["setup", "--dry-run", "--cpu", "--extra", "flash"]) == 2
    assert "flash-attn needs a PyTorch for CUDA" in capsys.readouterr().err


def has(python, **versions):
    """A Python for workers as `sa2va setup` finds it, with PyTorch for CUDA 13.0."""
    from sa2va_host.machine.distribution import installed_versions

    names = {each.name for each in (*requirements("worker"), *requirements("quantization"))}
    return Interpreter(
        executable=str(python),
        python="3.11.9",
        versions={
            **dict.fromkeys(names, "999"),
            **installed_versions(["sa2va-host"]),
            "pip": "26.0",
            **versions,
        },
        error="",
        cuda="13.0",
        devices=("cuda:0 NVIDIA H200",),
    )


def test_a_gpu_s_environment_without_bitsandbytes_gets_it_or_the_command_for_it(
    distribution, without_uv, tmp_path, monkeypatch, capsys
):
    """What this command has made is brought up to date; into the Python of somebody else nothing is put."""
    from sa2va_host.machine import interpreters, nvidia
    from sa2va_plugins.cli import setup

    monkeypatch.setattr(nvidia, "find_driver", lambda: driver("13.0"))
    python = tmp_path / "theirs" / "bin" / "python"
    monkeypatch.setattr(interpreters, "inspect", lambda *_, **__: has(python, bitsandbytes=None))
    assert main(["setup", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"has all it needs in {python}" in said
    assert said.endswith(f"Run: {python} -m pip install 'bitsandbytes>=0.45'\n")

    monkeypatch.setattr(interpreters, "inspect", lambda *_, **__: has(python))
    assert main(["setup", "--dry-run"]) == 0
    assert "bitsandbytes" not in capsys.readouterr().out

    ours = tmp_path / "ours"
    (ours / "bin").mkdir(parents=True)
    (ours / "bin" / "python").touch()
    (ours / "pyvenv.cfg").touch()
    monkeypatch.setattr(setup, "_folder", lambda *_: ours)
    monkeypatch.setattr(
        interpreters, "inspect", lambda *_, **__: has(ours / "bin" / "python", bitsandbytes=None)
    )
    assert main(["setup", "--dry-run"]) == 0
    assert "sa2va-host[worker,quantization]==7.8.9" in capsys.readouterr().out


def test_a_pytorch_for_cpus_is_never_taken_for_the_one_of_a_gpu_without_a_word(capsys):
    from sa2va_plugins.cli.setup import _warn_of

    made = Interpreter(
        executable="/env/bin/python", python="3.11.9", versions={"torch": "2.13.0+cpu"}, error=""
    )
    wanted = choose_torch(None, driver("13.0"), "win32")
    assert wanted.build == "cuda"
    assert not wanted.suits(made, driver("13.0"))
    _warn_of(made, wanted)
    said = capsys.readouterr().err
    assert "torch 2.13.0+cpu is one for the CPU, so the worker will not use the GPU" in said
    assert "PIP_*" in said


def bare_python(folder, *hidden):
    """An interpreter in which some modules cannot be imported, as in the portable Pythons of Windows."""
    for name in hidden:
        (folder / f"{name}.py").write_text("raise ImportError('it is not part of this Python')\n")
    python = folder / "bare-python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def test_without_venv_it_is_virtualenv(distribution, without_uv, tmp_path, capsys):
    folder = tmp_path / "env"
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    python = bare_python(hidden, "venv", "virtualenv")
    assert main(["setup", "--dry-run", "--path", str(folder), "--python", str(python)]) == 0
    fetch, make, *_ = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    beside = f"{folder}-virtualenv"
    assert fetch == [str(python), "-m", "pip", "install", "--upgrade", "--target", beside, "virtualenv"]
    assert (make[0], make[-2:]) == (str(python), [beside, str(folder)])

    (hidden / "virtualenv.py").write_text("")
    assert main(["setup", "--dry-run", "--path", str(folder), "--python", str(python)]) == 0
    assert capsys.readouterr().out.startswith(f"{python} -m virtualenv {folder}\n")

    python = bare_python(hidden, "venv", "virtualenv", "pip")
    assert main(["setup", "--dry-run", "--path", str(folder), "--python", str(python)]) == 2
    assert f"{python} has neither venv nor virtualenv nor pip" in capsys.readouterr().err


def test_a_python_that_is_not_there(distribution, without_uv, tmp_path, capsys):
    assert main(["setup", "--dry-run", "--path", str(tmp_path / "env"), "--python", "3.12"]) == 4
    assert "3.12 cannot be started" in capsys.readouterr().err


def test_an_environment_for_the_code_of_checkpoints(distribution, without_uv, tmp_path, capsys, monkeypatch):
    config = tmp_path / "sa2va.toml"
    config.touch()
    monkeypatch.setenv("SA2VA_CONFIG", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["setup", "remote-code", "--dry-run", "--cpu"]) == 0
    said = capsys.readouterr()
    make, *torch, install = said.out.splitlines()
    assert all(
        line.endswith("'torch>=2.6' 'torchvision>=0.21'")
        for line in torch
        if not line.endswith(" install uv")
    )
    folder = tmp_path / "data" / "sa2va" / "remote-code"
    assert make == f"{sys.executable} -m venv {folder}"
    assert install == f"{folder}/bin/python -m pip install 'sa2va-host[remote-code]==7.8.9'"
    assert f"An environment for remote-code in {folder}: PyTorch for the CPU" in said.err
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
    assert main(["setup", "--path", str(tmp_path / "env"), "--python", "/bin/false"]) == 2
    assert "/bin/false has neither venv nor virtualenv nor pip" in capfd.readouterr().err
    assert config.read_text() == ""
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("spec", ["torch = 2", "numpy==2.0", ""])
def test_another_thing_than_torch(capsys, spec):
    assert main(["setup", "--torch", spec]) == 2
    assert "is no version of PyTorch" in capsys.readouterr().err


@pytest.fixture
def index(distribution, tmp_path):
    """A folder of wheels that satisfies our distribution; torch brings everything the tests' Python has."""
    pytest.importorskip("transformers")
    folder = tmp_path / "wheels"
    folder.mkdir()
    borrowed = "".join(f"{path}\n" for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    for requirement in requirements() + requirements("worker", "opencv"):
        files = {"borrowed.pth": borrowed} if requirement.name == "torch" else {}
        make_wheel(folder, requirement.name, metadata.version(requirement.name), files)
    text = (distribution / "METADATA").read_text()
    make_wheel(folder, "sa2va-host", "7.8.9", {f"{OURS}.dist-info/METADATA": text})
    return folder


VIRTUALENV = """
import os, subprocess, sys
environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
subprocess.run([sys.executable, "-m", "venv", *sys.argv[1:]], env=environment, check=True)
"""
"""What virtualenv does, for a Python whose venv is only hidden."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_virtualenv_is_fetched_where_there_is_no_venv(without_uv, tmp_path, monkeypatch):
    wheels, hidden, folder = (tmp_path / name for name in ("wheels", "hidden", "env"))
    wheels.mkdir()
    hidden.mkdir()
    make_wheel(
        wheels, "virtualenv", "99", {"virtualenv/__init__.py": "", "virtualenv/__main__.py": VIRTUALENV}
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")  # as some have it, and no environment is active
    tools = Tools.find(str(bare_python(hidden, "venv", "virtualenv")))
    for command in tools.make(folder, clear=False):
        subprocess.run(command, env=execution_environment(), check=True)
    assert subprocess.run([Environment(folder, "worker").interpreter, "-c", ""], check=True).returncode == 0


def test_an_environment_knows_whether_it_is_whole(tmp_path):
    ours, theirs = Environment(tmp_path / "ours", "worker"), Environment(tmp_path / "theirs", "worker")
    theirs.folder.mkdir()
    (theirs.folder / "pyvenv.cfg").touch()
    for environment in (ours, theirs):
        assert not environment.is_interrupted
        environment.begin()
        assert environment.is_interrupted
    assert (ours.may_be_cleared, theirs.may_be_cleared) == (True, False)
    ours.folder.mkdir()
    (ours.folder / "half").touch()
    ours.begin()  # run again, and the mark survives whatever happens to the folder
    assert ours.may_be_cleared
    ours.finish()
    assert not ours.is_interrupted


def test_what_was_interrupted_is_made_anew_and_what_is_not_ours_is_written_over(
    distribution, without_uv, tmp_path, capsys
):
    """pip takes a package for installed whose files are half written."""
    ours, theirs = Environment(tmp_path / "ours", "worker"), Environment(tmp_path / "theirs", "worker")
    theirs.folder.mkdir()
    (theirs.folder / "pyvenv.cfg").touch()
    for environment in (ours, theirs):
        environment.begin()
    ours.folder.mkdir()
    (ours.folder / "half").touch()  # no pyvenv.cfg: it was killed that early
    assert main(["setup", "--dry-run", "--path", str(ours.folder)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{sys.executable} -m venv --clear {ours.folder}\n")
    assert "did not come to its end" in said.err
    assert main(["setup", "--dry-run", "--path", str(theirs.folder)]) == 0
    make, *install = capsys.readouterr().out.splitlines()
    assert make == f"{sys.executable} -m venv {theirs.folder}"
    assert all(
        " --force-reinstall " in line or ("/uv pip install" in line and " --reinstall " in line)
        for line in install
    )


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
    assert Environment(tmp_path / "env", "worker").is_interrupted
    (half,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    half /= f"accelerate-{metadata.version('accelerate')}.dist-info"
    half.mkdir()  # as pip leaves it when it is killed
    (half / "METADATA").write_text(f"Name: accelerate\nVersion: {metadata.version('accelerate')}\n")

    shutil.move(tmp_path / wheel.name, wheel)
    done = setup("--path", str(tmp_path / "env"))
    assert done.returncode == 0, done.stderr
    python = tmp_path / "env" / "bin" / "python"
    assert f"The worker can run in {python} (Python " in done.stdout
    assert (half / "RECORD").exists()
    assert not Environment(tmp_path / "env", "worker").is_interrupted
    assert config.read_text() == f"device = 'cpu'  # of this machine\nworker_python = \"{python}\"\n"

    again = setup()
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"The worker has all it needs in {python} (Python ")
    assert again.stderr == ""
