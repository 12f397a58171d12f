"""Installations of different age meet: the protocol version alone decides, and is named, whatever else has changed."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path

import msgspec

from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
from sa2va_host.machine import processes
from sa2va_host.machine.worker_program import worker_command
from sa2va_host.protocol.boot import EXIT_BOOT, Boot
from sa2va_host.protocol.envelope import PROTOCOL
from sa2va_host.protocol.specification import Specification
from sa2va_host.protocol.transport import Endpoint


def boot_line(run: Path, **changes: object) -> bytes:
    boot = Boot(
        incarnation=secrets.token_hex(16),
        token=secrets.token_hex(32),
        specification=Specification(checkpoint="/models/one"),
        run_dir=str(run),
        transport="auto",
        launcher=processes.current(),
        keep_alive=0.0,
        lease_grace=1.0,
        cancel_grace=1.0,
        queue_bound=1,
        max_active=1,
        log_level="info",
    )
    return json.dumps({**msgspec.to_builtins(boot), **changes}).encode() + b"\n"


def test_a_worker_names_the_version_of_a_launcher_whose_words_it_does_not_know(tmp_path: Path) -> None:
    done = subprocess.run(
        worker_command(sys.executable),
        input=boot_line(tmp_path / "run", protocol=PROTOCOL + 1, something_new=1, transport=7),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == EXIT_BOOT
    assert done.stderr.decode() == f"sa2va worker: protocol {PROTOCOL + 1}, not {PROTOCOL}\n"


def test_a_newer_workers_record_is_found_so_that_it_can_say_its_version(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    spec = Specification(checkpoint="/models/one")
    me = processes.current()
    record = Record(
        protocol=PROTOCOL + 1,
        incarnation=secrets.token_hex(16),
        token=secrets.token_hex(32),
        process=me,
        specification=spec,
        endpoint=Endpoint(address=f"ipc://{run.path}/somewhere"),
        log="",
        created=0.0,
        launcher=me,
    )
    run.write(record)
    (run.path / "somewhere").touch()  # a record without its socket is passed over
    file = run.path / record.file_name
    content = json.loads(file.read_text())
    content["specification"]["something_new"] = True
    file.write_text(json.dumps(content))
    assert run.find(spec) == record
