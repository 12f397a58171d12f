"""Every command against a real worker process: files, documents, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from .conftest import PROGRAM

SEGMENT = ("segment", "picture.png", "--prompt")


def is_gone(pid):
    """A zombie holds nothing; it only waits for whoever inherited it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def mask_of(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        values = np.asarray(image)
    assert set(np.unique(values)) <= {0, 255}
    return values == 255


def test_segment_writes_masks_and_an_overlay(sa2va, picture, tmp_path):
    done = sa2va(*SEGMENT, "objects=2", "-o", "out")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"picture.0.png", "picture.1.png", "picture.overlay.png"}
    mask = mask_of(tmp_path / "out" / "picture.0.png")
    assert mask.shape == (48, 64)
    assert mask[24, 28]
    assert not mask[2, 2]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("objects=2 [1] by ")
    assert re.fullmatch(
        rf"  {re.escape('out/picture.0.png')}  {mask.sum()} pixels, mean .* \d\.\d\d", lines[1]
    )
    assert re.search(r"model scripted:, worker \d+ \(started for this call\)$", lines[-1])
    again = sa2va(*SEGMENT, "objects=1", "-o", "out")
    pid = re.search(r"worker (\d+) ", lines[-1])
    assert pid is not None
    assert again.stdout.splitlines()[-1].endswith(f"worker {pid[1]} (warm)")


def test_the_json_document(sa2va, picture, tmp_path):
    done = sa2va(*SEGMENT, "objects=2", "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"results", "model", "worker", "notes", "timings"}
    assert document["model"] == "scripted:"
    assert set(document["worker"]) == {"pid", "started"}
    assert document["timings"]["total"] > 0
    (result,) = document["results"]
    assert (result["image"], result["prompt"], result["size"]) == ("picture.png", "objects=2", [48, 64])
    assert result["text"].startswith("objects=2 [1]")
    for index, found in enumerate(result["objects"]):
        assert set(found) == {"index", "mask", "area", "box", "mean_probability", "phrase"}
        assert (found["index"], found["mask"]) == (index, f"picture.{index}.png")
        mask = mask_of(tmp_path / found["mask"])
        assert found["area"] == mask.sum()
        x0, y0, x1, y1 = found["box"]
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert all(edge.any() for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
        assert 0.5 < found["mean_probability"] <= 1


def test_masks_are_those_of_the_python_api(sa2va, picture, environment, tmp_path):
    done = sa2va(*SEGMENT, "objects=1", "--threshold", "0.9", "--json")
    code = (
        "import numpy as np; from sa2va_host import Sa2VA\n"
        "with Sa2VA() as sa: np.save('mask.npy', sa.segment('picture.png', 'objects=1').masks(0.9))"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    written = mask_of(tmp_path / json.loads(done.stdout)["results"][0]["objects"][0]["mask"])
    assert np.array_equal(np.load(tmp_path / "mask.npy"), written[None])


def test_nothing_found_is_an_answer(sa2va, picture, tmp_path):
    done = sa2va(*SEGMENT, "objects=0", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["results"][0]["objects"] == []
    assert sorted(path.name for path in tmp_path.glob("picture.*")) == ["picture.overlay.png", "picture.png"]


def test_an_empty_mask_has_no_box(sa2va, picture):
    done = sa2va(*SEGMENT, "objects=1", "--threshold", "1", "--json")
    (found,) = json.loads(done.stdout)["results"][0]["objects"]
    assert (found["area"], found["box"], found["mean_probability"]) == (0, None, 0.0)


def test_chat(sa2va, picture):
    done = sa2va("chat", picture, "--prompt", "how many?", "--json")
    document = json.loads(done.stdout)
    assert document["text"].startswith("how many? [1]")
    assert document["images"] == [str(picture)]
    assert sa2va("chat", "--prompt", "hello").stdout.startswith("hello [0]")


def test_ps_and_stop(sa2va, picture):
    assert sa2va("ps").stdout == "No worker is running.\n"
    pid = json.loads(sa2va(*SEGMENT, "objects=1", "--json", "--keep-alive", "1h").stdout)["worker"]["pid"]
    lines = sa2va("ps").stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["PID", "MODEL", "DEVICE", "DTYPE", "PHASE", "SINCE", "MEMORY", "KEEP-ALIVE"]
    assert lines[1].split()[:5] == [str(pid), "scripted:", "cpu", "float32", "ready"]
    assert lines[1].endswith("60 min left")
    (worker,) = json.loads(sa2va("ps", "--json").stdout)["workers"]
    assert (worker["pid"], worker["phase"], worker["keep_alive"]) == (pid, "ready", 3600.0)
    other = sa2va("stop", "another")
    assert (other.returncode, other.stderr) == (0, "No worker of another is running.\n")
    assert sa2va("stop", "scripted:").stdout == f"Worker {pid} of scripted: is gone.\n"
    assert is_gone(pid)
    assert json.loads(sa2va("ps", "--json").stdout) == {"workers": []}
    assert sa2va("stop", "--all").returncode == 0


def test_keep_alive_0_ends_the_worker(sa2va, picture):
    pid = json.loads(sa2va(*SEGMENT, "objects=1", "--json", "--keep-alive", "0").stdout)["worker"]["pid"]
    deadline = time.monotonic() + 10
    while json.loads(sa2va("ps", "--json").stdout)["workers"]:
        assert time.monotonic() < deadline
    assert is_gone(pid)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*SEGMENT, " "), 2, "The prompt is empty"),
        ((*SEGMENT, "error=input"), 2, "The script dislikes this"),
        ((*SEGMENT, "x", "--model", "./nowhere"), 3, "There is no checkpoint folder './nowhere'"),
        ((*SEGMENT, "x", "--model", "scripted:failload=1"), 3, "Write another script"),
        ((*SEGMENT, "die=SIGKILL"), 4, "The next call starts a new worker"),
        ((*SEGMENT, "error=bug"), 4, "division by zero"),
        ((*SEGMENT, "error=memory"), 6, "The script has no memory"),
        ((*SEGMENT, "objects=1", "-o", "picture.png"), 1, "picture.png"),
    ],
)
def test_errors_are_a_sentence_and_an_exit_code(sa2va, picture, arguments, code, message):
    done = sa2va(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "sa2va: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sa2va(*SEGMENT, "objects=1").returncode == 0  # whatever it was, the next call works


def test_debugging_shows_where(sa2va, picture):
    done = sa2va(*SEGMENT, "error=input", extra={"SA2VA_DEBUG": "1"})
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_time_limit(sa2va, picture):
    done = sa2va(*SEGMENT, "steps=100 pause=0.1", extra={"SA2VA_TIMEOUT": "2"})
    assert done.returncode == 7
    assert "timeout of 2 s" in done.stderr


def test_stop_is_refused_while_somebody_works(sa2va, picture, environment, tmp_path):
    command = [*PROGRAM, *SEGMENT, "steps=600 pause=0.1"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as other:
        wait_for_phase(sa2va, "generating")
        done = sa2va("stop", "--all", extra={"SA2VA_UNLOAD_WAIT": "0.2"})
        assert done.returncode == 5
        assert str(other.pid) in done.stderr
        assert sa2va("stop", "--all", "--force").returncode == 0
        assert other.wait(10) == 130  # its call was cancelled by the forced stop
        assert other.stderr is not None
        assert "Traceback" not in other.stderr.read()


def test_ctrl_c_cancels_and_leaves_the_worker(sa2va, picture, environment, tmp_path):
    command = [*PROGRAM, *SEGMENT, "steps=600 pause=0.1"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for_phase(sa2va, "generating")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert (out, err.splitlines()[-1]) == ("", "Cancelled.")
    assert "Traceback" not in err
    wait_for_phase(sa2va, "ready")
    assert list(tmp_path.glob("picture.*")) == [picture]


def wait_for_phase(sa2va, phase):
    deadline = time.monotonic() + 20
    while phase not in [worker["phase"] for worker in json.loads(sa2va("ps", "--json").stdout)["workers"]]:
        assert time.monotonic() < deadline


def test_plain_lines_without_a_terminal(sa2va, picture):
    done = sa2va(*SEGMENT, "objects=1", "--model", "scripted:load=0.3")
    starting, loading = done.stderr.splitlines()[:2]
    assert starting == "starting ..."
    assert re.fullmatch(r"loading \d.* \.\.\.", loading)
    assert sa2va(*SEGMENT, "objects=1", "--model", "scripted:load=0.3").stderr == ""


def test_a_moving_line_on_a_terminal(picture, environment, tmp_path):
    import pty

    master, slave = pty.openpty()
    command = [*PROGRAM, *SEGMENT, "objects=1 steps=10 pause=0.1"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=slave
    ) as running:
        os.close(slave)
        shown = b""
        while True:
            try:
                shown += os.read(master, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
        os.close(master)
        assert running.stdout is not None
        assert running.stdout.read().startswith(b"objects=1")
    assert running.returncode == 0
    assert b"generating" in shown
    assert b"tokens" in shown


def test_a_reader_that_leaves(sa2va, picture, environment, tmp_path):
    sa2va(*SEGMENT, "objects=1")
    with subprocess.Popen(
        [*PROGRAM, *SEGMENT, "objects=1"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.close()
        running.wait(20)
        assert running.stderr is not None
        assert running.stderr.read() == b""
