"""`sa2va doctor` finds what is broken, says what to do, and never breaks itself."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sa2va_host.config import ModelSettings, Settings
from sa2va_host.errors import WorkerStartFailed
from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
from sa2va_host.machine import processes
from sa2va_host.machine.distribution import extras
from sa2va_host.machine.interpreters import Interpreter, inspect
from sa2va_host.machine.nvidia import Driver, Gpu, find_driver
from sa2va_host.machine.processes import ProcessId
from sa2va_host.protocol.specification import Specification
from sa2va_host.protocol.transport import Endpoint
from sa2va_plugins.cli.advisories import ADVISORIES, affecting
from sa2va_plugins.cli.checks import CHECKS, HERE, IN_WORKER, OF_DEVELOPERS, examine
from sa2va_plugins.cli.environment import Environment
from sa2va_plugins.cli.findings import Finding
from sa2va_plugins.cli.interpreter_checks import USES, accelerators, interrupted, libraries, vulnerabilities

from .conftest import PROGRAM


def findings(check, **settings):
    """What one check has to say about these settings."""
    return list(CHECKS[check](Settings(**settings)))


def first(check):
    """The first thing that the whole examination says of one check; it goes no further than that."""
    return next(finding for name, finding in examine() if name == check)


def test_whatever_is_broken_every_check_reports(tmp_path):
    (tmp_path / "file").touch()
    environment = {
        **os.environ,
        "SA2VA_RUN_DIR": str(tmp_path / "file"),
        "SA2VA_WORKER_PYTHON": "/no/such/python",
        "HF_HUB_CACHE": "/proc/nowhere",
        "HOME": "/proc/nowhere",
    }
    done = subprocess.run(
        [*PROGRAM, "doctor", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert {finding["check"] for finding in document["findings"]} >= set(CHECKS) - {
        "shared memory",
    }
    failed = {finding["check"] for finding in document["findings"] if finding["level"] == "problem"}
    assert failed >= {"run directory", "workers", "worker python"}
    assert document["problems"] >= len(failed)


def test_a_broken_configuration_file(tmp_path, monkeypatch):
    (tmp_path / "sa2va.toml").write_text("[broken")
    monkeypatch.setenv("SA2VA_CONFIG", str(tmp_path / "sa2va.toml"))
    found = first("settings")
    assert found.level == "problem"
    assert f"{tmp_path / 'sa2va.toml'} is not TOML" in found.message


def test_an_interpreter_that_is_none(sa2va):
    done = sa2va("doctor")
    assert done.returncode == 1
    assert "worker-python does not answer as a Python does" in done.stdout
    assert "-> Check worker_python." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("problems: 1, warnings: ")
    assert json.loads(sa2va("ps", "--json").stdout) == {"workers": []}, "it starts no worker"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_this_interpreter():
    pytest.importorskip("transformers")
    found = findings("worker python")
    assert found[0] == Finding("ok", f"Python {sys.version.split()[0]}, {sys.executable}")
    assert "torch 2" in found[1].message
    assert [each for each in found if each.level == "problem"] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_optional_library_is_tried_and_not_only_imported(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    assert inspect("").trials["bitsandbytes"] == ""
    (tmp_path / "bitsandbytes.py").write_text("functional = None  # as built for another machine\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    found = inspect(str(python))
    assert "AttributeError" in found.trials["bitsandbytes"]
    (broken,) = [each for each in libraries(found) if each.level == "warning"]
    assert "does not work, which quantization 8bit and 4bit needs" in broken.message
    assert broken.advice == f"Run: {found.executable} -m pip install --force-reinstall bitsandbytes"


def test_an_interpreter_that_hangs(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    with pytest.raises(WorkerStartFailed, match=r"within 0\.2 s"):
        inspect(str(python), seconds=0.2)


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_a_worker_python_that_cannot_be_run(monkeypatch, tmp_path, python):
    monkeypatch.setenv("SA2VA_WORKER_PYTHON", python)
    found = first("worker python")
    assert found.level == "problem"
    assert python in found.message
    assert found.advice == "Check worker_python."


def test_a_run_directory_that_is_open_to_others(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir(mode=0o755)
    monkeypatch.setenv("SA2VA_RUN_DIR", str(tmp_path / "run"))
    found = first("run directory")
    assert (found.level, found.advice) == ("problem", f"Run: chmod 700 {tmp_path / 'run'}")


def test_a_run_directory_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SA2VA_RUN_DIR", str(tmp_path / "file" / "run"))
    found = first("run directory")
    assert found.level == "problem"
    assert "SA2VA_RUN_DIR" in found.advice


def test_a_run_directory_whose_path_is_too_long_for_a_socket(tmp_path):
    short, long = findings("run directory", run_dir=str(tmp_path / ("x" * 120)))
    assert short.level == "ok"
    assert long.level == "warning"
    assert "103 bytes" in long.message


def test_a_record_of_the_dead(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    secret = secrets.token_hex(8)
    record = Record(
        incarnation="0" * 32,
        token=secret,
        process=ProcessId(processes.current().pid, 1, processes.boot_id()),
        specification=Specification(checkpoint="sa2va-tiny"),
        endpoint=Endpoint("ipc:///nowhere"),
        log=str(tmp_path / "its.log"),
        created=0.0,
        launcher=processes.current(),
    )
    directory.write(record)
    none, stale = findings("workers", run_dir=str(directory.path))
    assert none == Finding("ok", "none is running")
    assert stale.level == "warning"
    assert str(tmp_path / "its.log") in stale.message
    assert secret not in f"{stale}"


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("sa2va_plugins.cli.checks.CACHE_SPACE", 1 << 60)
    cache, _ = findings("disk space", run_dir=str(tmp_path / "run"))
    assert cache.level == "warning"
    assert str(tmp_path / "hub") in cache.message


H200 = Gpu("NVIDIA H200", 150_000_000_000, 149_000_000_000)
OLD_DRIVER = Driver("550.54", "12.4", (H200,))


def interpreter(**more):
    return Interpreter(executable="python", python="3.12.1", versions={"torch": "2.13.0"}, error="", **more)


@pytest.mark.parametrize(
    ("found", "driver", "level", "words"),
    [
        (interpreter(), None, "ok", "built without CUDA, finds no GPU, so models run on the CPU"),
        (interpreter(), OLD_DRIVER, "warning", "built without CUDA"),
        (interpreter(cuda="13.0"), OLD_DRIVER, "problem", "CUDA 13.0, and the driver goes up to 12.4"),
        (interpreter(cuda="12.8"), OLD_DRIVER, "warning", "torch sees no GPU"),
        (interpreter(cuda="12.8", devices=("cuda:0 NVIDIA H200",)), OLD_DRIVER, "ok", "cuda:0 NVIDIA H200"),
        (interpreter(devices=("mps",)), None, "ok", "mps"),
    ],
)
def test_what_stands_between_torch_and_the_gpu(found, driver, level, words):
    last = list(accelerators(found, driver))[-1]
    assert last.level == level
    assert words in last.message


def test_libraries_that_are_not_installed_are_named_with_their_use():
    for found, (name, use) in zip(libraries(interpreter()), USES.items(), strict=True):
        assert (found.level, found.message) == ("ok", f"{name} is not installed, which only {use} needs")
    there = interpreter()
    there.versions.update(dict.fromkeys(USES, "1.0"))
    assert list(libraries(msgspec.structs.replace(there, trials=dict.fromkeys(USES, "")))) == [
        Finding("ok", ", ".join(f"{name} 1.0 works ({use})" for name, use in USES.items()))
    ]
    looked_up = msgspec.structs.replace(there, tried=False)
    assert "works" not in next(libraries(looked_up)).message


def test_what_the_worker_lacks_is_said_once_with_what_brings_it(tmp_path):
    """An interpreter without PyTorch has no PyTorch built without CUDA, and needs no quantization yet."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: without site-packages
    python.chmod(0o755)
    found = findings("worker python", worker_python=str(python))
    (problem,) = [each for each in found if each.level == "problem"]
    assert problem.message.startswith("the worker cannot run there: it lacks accelerate>=1.0, ")
    assert problem.advice.endswith("sa2va setup")
    said = " ".join(each.message for each in found)
    assert "built without CUDA" not in said
    assert "bitsandbytes" not in said


def test_every_extra_of_ours_is_looked_at():
    assert set(extras()) <= {*HERE, *IN_WORKER, *OF_DEVELOPERS}
    found = findings("extras")
    assert [each.message.split(" ")[0].strip(",") for each in found] == [
        each for each in extras() if each in HERE
    ]


def test_an_extra_that_is_missing_is_named_with_its_use_and_its_command(monkeypatch):
    monkeypatch.setattr("sa2va_host.machine.distribution.installed_versions", dict.fromkeys)
    (video,) = [each for each in findings("extras") if each.message.startswith("video")]
    assert (video.level, video.message) == ("ok", "video is missing, for video files: av>=15")
    assert video.advice == f"Run: {sys.executable} -m pip install 'av>=15'"


def test_opencv_is_whichever_there_is(monkeypatch):
    import cv2

    (found,) = [each for each in findings("extras") if each.message.startswith("opencv")]
    assert found.level == "ok"
    assert f"cv2 {cv2.__version__}, {Path(cv2.__file__).parent}" in found.message
    monkeypatch.setattr("sa2va_host.extras._opencv_failure", lambda: "")
    monkeypatch.setattr("sa2va_host.extras.opencv_is_installed", lambda: False)
    (found,) = [each for each in findings("extras") if each.message.startswith("opencv")]
    assert (found.level, "not installed" in found.message) == ("ok", True)
    assert found.advice == f"Run: {sys.executable} -m pip install 'opencv-python-headless>=4.8'"


def test_a_set_up_that_was_interrupted_is_a_problem(tmp_path):
    environment = Environment(tmp_path / "env", "worker")
    environment.begin()
    environment.interpreter.parent.mkdir(parents=True)
    environment.interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    environment.interpreter.chmod(0o755)
    found = list(interrupted(str(environment.interpreter)))
    assert [each.level for each in found] == ["problem"]
    assert str(environment.folder) in found[0].message
    environment.finish()
    assert list(interrupted(str(environment.interpreter))) == []


@pytest.mark.parametrize(
    ("version", "cves"),
    [
        ("4.57.6", ["CVE-2026-4372", "CVE-2026-5241", "CVE-2026-9856"]),
        ("5.3.0", ["CVE-2026-5241", "CVE-2026-9856"]),
        ("5.5.0", ["CVE-2026-9856"]),
        ("5.10.0rc1", ["CVE-2026-9856"]),
        ("5.10.0", []),
        (None, []),
    ],
)
def test_vulnerabilities_are_those_of_the_version(version, cves):
    assert [advisory.cve for advisory in affecting({"transformers": version})] == cves
    assert [advisory.cve for advisory in ADVISORIES] == sorted(advisory.cve for advisory in ADVISORIES)
    versions = {"transformers": version, "pip": "25"}
    found = Interpreter(executable="/a b/python", python="3.12.1", versions=versions, error="")
    said = list(vulnerabilities(found))
    assert [each.level for each in said] == ["warning"] * bool(cves)
    assert all(cve in each.message for each in said for cve in cves)
    assert [each.advice for each in said] == [
        "Run: '/a b/python' -m pip install 'transformers>=5.10.0'"
    ] * bool(cves)
    assert ["pip" in each.advice for each in vulnerabilities(found, pinned=True)] == [False] * bool(cves)


def test_an_interpreter_of_a_single_model_is_checked_too():
    models = {
        "Org/A": ModelSettings(worker_python="/no/such/python"),
        "Org/B": ModelSettings(worker_python="/no/such/python"),
        "Org/C": ModelSettings(),
    }
    found, _ = findings("other pythons", models=models)
    assert found.level == "problem"
    assert found.message.startswith("for Org/A, Org/B: The interpreter /no/such/python cannot be started")
    (none,) = findings("other pythons")
    assert none.level == "ok"
    assert "no model has an environment for remote-code" in none.message
    assert none.advice.endswith(" setup remote-code --model ORG/NAME")


def test_model_folders_and_what_is_in_them(tmp_path):
    broken = tmp_path / "models" / "Sa2VA-Broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    gone = tmp_path / "gone"
    found = findings("models", model_folders=(str(broken.parent), str(gone)), model="sa2va-tiny")
    assert [each.level for each in found] == ["warning", "ok", "warning", "ok"]
    missing, listed, unusable, default = found
    assert missing.message == f"the model folder {gone} is not there"
    assert f"1 in folders ({broken.parent}, {gone})" in listed.message
    assert listed.message.endswith(": sa2va-tiny, Sa2VA-Broken")
    assert "config.json cannot be read" in unusable.message
    assert default.message == "the default is sa2va-tiny"


@pytest.mark.gpu
def test_the_driver_tells_of_its_gpus():
    driver = find_driver()
    if driver is None:
        pytest.skip("no NVIDIA driver")
    assert driver.gpus
    assert all(gpu.name and 0 <= gpu.free <= gpu.memory for gpu in driver.gpus)
    assert float(driver.cuda) >= 11


def test_a_plugin_that_fails(tmp_path, monkeypatch):
    info = tmp_path / "sa2va_rotten-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sa2va_rotten\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sa2va]\nrotten = a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = [each for each in findings("plugins") if each.level == "problem"]
    assert "rotten (sa2va_rotten 1.0)" in found.message
    assert found.advice.endswith("SA2VA_DISABLE_PLUGINS=rotten.")


def test_packages_are_those_of_the_distribution():
    found, working = findings("packages")
    assert (found.level, working) == ("ok", Finding("ok", "pycocotools work"))
    assert "sa2va-host" in found.message
    assert str(Path(sys.modules["sa2va_host"].__file__ or "").parent) in found.message
