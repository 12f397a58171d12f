"""A process without file descriptors: it takes nobody for dead, and it is not ended by ZeroMQ."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc are Linux's")

FAMINE = "import os\nfrom tests.lifecycle.famine import famine\n"


def test_a_famine_of_any_depth_ends_in_an_error_of_ours_and_never_in_the_end_of_the_process(client_program):
    """Its host may be ComfyUI. libzmq aborts where it finds no descriptor for a poller."""
    program = client_program(
        FAMINE + "from sa2va_host import list_workers\nfrom sa2va_host.errors import Sa2VAError\n"
        "Sa2VA('scripted:', settings=settings, command=COMMAND).segment(picture, 'objects=1')\n"
        "for left in range(30):\n"
        "    for ask in (lambda sa: sa.segment(picture, 'objects=1', timeout=10),\n"
        "                lambda sa: sa.status(), lambda sa: list_workers(settings), lambda sa: sa.load(timeout=10)):\n"
        "        sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "        with famine(left):\n"
        "            try:\n"
        "                ask(sa)\n"
        "            except Sa2VAError:\n"
        "                pass\n"
        "        sa.close()\n"
        "print('alive', flush=True)\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(sa.segment(picture, 'objects=1').worker.pid == list_workers(settings)[0].pid, flush=True)\n"
    )
    assert program.stdout.readline() == "alive\n"
    assert program.stdout.readline() == "True\n"


def test_a_large_image_is_sent_in_a_famine_too(client_program):
    """pyzmq makes a context of its own for the first buffer that it does not copy; here it has none each time."""
    program = client_program(
        FAMINE + "from zmq.utils.garbage import gc\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "image = np.zeros((256, 256, 3), np.uint8)\n"
        "sa.segment(picture, 'objects=1')\n"
        "for left in range(1, 20):\n"
        "    gc.stop()\n"
        "    with famine(left):\n"
        "        assert len(sa.segment(image, 'objects=2')) == 2\n"
        "print('alive', flush=True)\n"
    )
    assert program.stdout.readline() == "alive\n"


def test_a_worker_that_cannot_be_started_in_a_famine_is_not_blamed_on_its_interpreter(client_program):
    program = client_program(
        FAMINE + "from sa2va_host.errors import Sa2VAError\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "words = ''\n"
        "for left in range(14):\n"
        "    sa.load()\n"
        "    sa.unload()\n"
        "    try:\n"
        "        with famine(left):\n"
        "            sa.load()\n"
        "    except Sa2VAError as error:\n"
        "        words += str(error)\n"
        "print('no file descriptor left' in words, 'worker_python' in words, flush=True)\n"
    )
    assert program.stdout.readline() == "True False\n"


def test_who_waited_for_a_module_that_another_thread_could_not_load_hears_of_the_shortage(client_program):
    """CPython hands the waiting thread the half-loaded module, in which the name is missing."""
    program = client_program(
        "import errno, os, sys, threading\n"
        "name = 'sa2va_host.video.stream'\n"
        "assert name not in sys.modules\n"
        "reached, go_on = threading.Event(), threading.Event()\n"
        "class Famine:\n"
        "    def find_spec(self, wanted, path=None, target=None):\n"
        "        if wanted == name and not reached.is_set():\n"
        "            reached.set()\n"
        "            go_on.wait(30)\n"
        "            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))\n"
        "sys.meta_path.insert(0, Famine())\n"
        "kinds = []\n"
        "def ask():\n"
        "    try:\n"
        "        Sa2VA('scripted:', settings=settings, command=COMMAND).track([picture], 'objects=1')\n"
        "    except Exception as error:\n"
        "        kinds.append(type(error).__name__)\n"
        "first = threading.Thread(target=ask)\n"
        "first.start()\n"
        "reached.wait(30)\n"
        "second = threading.Thread(target=ask)\n"
        "second.start()\n"
        "while second.is_alive():\n"
        "    frame = sys._current_frames().get(second.ident)\n"
        "    while frame and frame.f_code.co_name != '_lock_unlock_module':\n"
        "        frame = frame.f_back\n"
        "    if frame:\n"
        "        break\n"
        "go_on.set()\n"
        "first.join(30)\n"
        "second.join(30)\n"
        "print(*kinds, flush=True)\n"
    )
    assert program.stdout.readline() == "WorkerError WorkerError\n"


def test_masks_that_are_asked_for_in_a_famine_are_a_shortage_too(client_program):
    """What resizes them is imported by the first one."""
    program = client_program(
        FAMINE + "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "found = sa.segment(picture, 'objects=1')\n"
        "with famine(0):\n"
        "    try:\n"
        "        found.boxes()\n"
        "    except Exception as error:\n"
        "        kind = type(error).__name__\n"
        "print(kind, found.masks().shape, flush=True)\n"
    )
    assert program.stdout.readline() == "WorkerError (1, 48, 64)\n"


def test_what_is_imported_late_is_told_as_a_shortage_too(client_program):
    program = client_program(
        FAMINE + "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "with famine(0):\n"
        "    try:\n"
        "        sa.segment(picture, 'objects=1')\n"
        "    except Exception as error:\n"
        "        kind, words = type(error).__name__, str(error)\n"
        "print(kind, 'Too many open files' in words, flush=True)\n"
    )
    assert program.stdout.readline() == "WorkerError True\n"


def test_a_running_call_outlives_a_famine(client_program):
    program = client_program(
        FAMINE + "import threading, time\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.load()\n"
        "answers = []\n"
        "def ask():\n"
        "    try:\n"
        "        answers.append(len(sa.segment(picture, 'steps=15 pause=0.1 objects=2')))\n"
        "    except Exception as error:\n"
        "        answers.append(repr(error))\n"
        "thread = threading.Thread(target=ask)\n"
        "thread.start()\n"
        "while not sa.status().active:\n"
        "    time.sleep(0.01)\n"
        "with famine(0):\n"
        "    time.sleep(0.8)\n"
        "thread.join()\n"
        "print(answers, flush=True)\n"
    )
    assert program.stdout.readline() == "[2]\n"


def test_without_descriptors_nobody_is_taken_for_dead_but_a_watched_death_is_seen(client_program):
    program = client_program(
        FAMINE + "import subprocess\n"
        "from sa2va_host.errors import WorkerError\n"
        "from sa2va_host.lifecycle.workers import run_directory\n"
        "from sa2va_host.machine import processes\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.load()\n"
        "run = run_directory(settings)\n"
        "(record,) = run.records()\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "watch = processes.DeathWatch(processes.identify(child.pid))\n"
        "with famine(0):\n"
        "    alive = processes.is_alive(record.process), processes.is_client_alive(os.getppid(), 1)\n"
        "    fresh = processes.DeathWatch(record.process)\n"
        "    unknown = fresh.is_dead(), fresh.fileno()\n"
        "    before = watch.is_dead()\n"
        "    child.kill()\n"
        "    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)\n"
        "    after = watch.is_dead()\n"
        "    child.wait()\n"
        "    gone = processes.is_alive(watch.process)\n"
        "    refused = []\n"
        "    for question in (lambda: list(run.records()), lambda: run.stale(record.specification.checkpoint_key),\n"
        "                     lambda: processes.group_members(record.process)):\n"
        "        try:\n"
        "            question()\n"
        "        except WorkerError:\n"
        "            refused.append(True)\n"
        "print(alive, unknown, before, after, gone, len(refused), fresh.is_dead(), flush=True)\n"
    )
    assert program.stdout.readline() == "(True, True) (False, -1) False True False 3 False\n"
