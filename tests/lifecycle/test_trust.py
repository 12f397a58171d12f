"""Who may talk to a worker, and what happens to bytes from those who may not."""

import os
import socket as system_socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import zmq
from msgspec.structs import replace

from sa2va_host import ConfigError, ProtocolMismatch, WorkerError
from sa2va_host.machine import processes
from sa2va_host.protocol import envelope, wire
from sa2va_host.protocol.arrays import pack
from sa2va_host.protocol.limits import FRAME_WINDOW

needs_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be somebody else"
)
TCP = os.environ.get("SA2VA_TRANSPORT") == "tcp"  # at import: a fixture cleans the environment later


@pytest.fixture
def worker(connect, picture, run):
    """A loaded worker: the client that uses it, and its record."""
    sa = connect()
    sa.segment(picture, "objects=1")
    return sa, next(run.living())


@pytest.fixture
def raw(bare):
    """A bare socket to the worker, and the envelope that it takes."""
    client = bare()
    return client.socket, client.envelope


def answer(socket, seconds=2.0):
    assert socket.poll(int(seconds * 1000)), "no answer"
    return socket.recv_multipart()


@pytest.mark.parametrize("what", ["token", "incarnation", "version", "magic", "short", "empty"])
def test_a_wrong_envelope_is_refused_before_the_payload_is_looked_at(raw, worker, picture, what):
    socket, true = raw
    sa, _ = worker
    good = true.pack()
    frame, reason = {
        "token": (replace_field(true, token=bytes(32)), envelope.Reason.TOKEN),
        "incarnation": (replace_field(true, incarnation=bytes(16)), envelope.Reason.INCARNATION),
        "version": (good[:4] + b"\x00\x63" + good[6:], envelope.Reason.VERSION),
        "magic": (b"HTTP" + good[4:], envelope.Reason.MALFORMED),
        "short": (good[:20], envelope.Reason.MALFORMED),
        "empty": (b"", envelope.Reason.MALFORMED),
    }[what]
    socket.send_multipart([frame, b"\xff" * 100])
    reply = answer(socket)
    assert len(reply) == 1
    with pytest.raises(envelope.Refusal) as caught:
        envelope.check(reply[0], incarnation=true.incarnation, token=true.token)
    assert caught.value.reason is reason
    assert true.token not in reply[0]
    assert sa.segment(picture, "objects=1").text


def replace_field(true, **changes):
    return replace(true, **changes).pack()


def test_a_client_refuses_a_worker_of_another_version(worker, connect, monkeypatch):
    _, _ = worker
    ours = envelope.PROTOCOL
    monkeypatch.setattr(envelope, "PROTOCOL", 99)
    with pytest.raises(ProtocolMismatch, match=f"protocol {ours}, not 99"):
        connect().load()


def test_a_record_with_a_wrong_token_gets_a_typed_error(worker, connect, run):
    _, record = worker
    run.write(replace(record, token="00" * 32))
    with pytest.raises(WorkerError, match="token"):
        connect().load()


def test_files_and_directories_are_owner_only(worker, run):
    assert worker
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    for path in run.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name


def test_a_loose_umask_makes_nothing_loose(connect, picture, run):
    before = os.umask(0)
    try:
        connect().segment(picture, "objects=1")
    finally:
        os.umask(before)
    for path in run.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name


def test_a_directory_open_to_others_is_refused(connect, run):
    run.path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        connect().load()
    run.path.chmod(0o700)


def as_somebody_else(code):
    """How a program of another user fails."""
    become = "import os, socket; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
    done = subprocess.run([sys.executable, "-c", become + code], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["it does not"])[-1]


@needs_root
def test_another_user_reaches_neither_socket_nor_record_nor_shared_memory(worker, run):
    sa, record = worker
    paths = [run.path / record.file_name, Path(record.log)]
    offer = sa._session._link.arena.offer
    if offer is not None:
        paths.append(Path(f"/proc/{os.getpid()}/fd/{offer.fd}"))
    for path in paths:
        assert as_somebody_else(f"open({str(path)!r})").startswith("PermissionError"), path
    if record.endpoint.path is not None:
        knock = f"socket.socket(socket.AF_UNIX).connect({str(record.endpoint.path)!r})"
        assert as_somebody_else(knock).startswith("PermissionError")


@needs_root
def test_a_directory_of_another_user_is_refused(connect, run):
    os.chown(run.path, 65534, 65534)
    with pytest.raises(ConfigError, match="another user"):
        connect().load()
    os.chown(run.path, 0, 0)


def test_no_secret_in_command_line_environment_or_any_other_file(connect, settings, run, bare):
    """Nor in those of its children, nor in the most talkative log of messages that were refused."""
    connect("scripted:children=1", settings=replace(settings, log_level="debug")).load()
    (record,) = run.living()
    liar = bare(record)
    for frames in ([liar.true[:70], b"x"], [liar.true, b"\xff"], [b"\0" * 72, liar.true]):
        liar.socket.send_multipart(frames)
        answer(liar.socket)
    assert Path(record.log).read_text().count("refused") == 3
    processes_of_it = processes.group_members(record.process)
    assert len(processes_of_it) == 2
    places = [Path(f"/proc/{pid}/{name}") for pid in processes_of_it for name in ("cmdline", "environ")]
    places += [path for path in run.path.iterdir() if path.is_file() and path.name != record.file_name]
    for place in places:
        for secret in (record.token.encode(), liar.envelope.token):
            assert secret not in place.read_bytes(), place


def test_the_environment_of_the_worker_is_clean(connect, monkeypatch, run):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HOME", "/hub")
    connect().load()
    content = Path(f"/proc/{next(run.living()).process.pid}/environ").read_bytes().decode()
    variables = dict(line.partition("=")[::2] for line in content.split("\0"))
    assert "PYTHONPATH" not in variables
    assert "PYTORCH_CUDA_ALLOC_CONF" not in variables
    assert variables["HF_HOME"] == "/hub"
    assert "CUDA_VISIBLE_DEVICES" in variables


@pytest.mark.skipif(TCP, reason="the suite runs over TCP")
def test_nothing_listens_on_tcp_where_ipc_works(worker):
    _, record = worker
    assert record.endpoint.address.startswith("ipc://")
    assert psutil.Process(record.process.pid).net_connections() == []


def test_tcp_is_loopback_with_curve_and_a_plain_socket_gets_nothing(connect, picture, settings, run):
    sa = connect(settings=replace(settings, transport="tcp"))
    assert sa.segment(picture, "objects=1").text
    record = next(run.living())
    assert record.endpoint.address.startswith("tcp://127.0.0.1:")
    assert len(record.endpoint.server_key) == 40
    assert {each.laddr.ip for each in psutil.Process(record.process.pid).net_connections()} == {"127.0.0.1"}
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(record.endpoint.address)
    me = processes.current()
    true = envelope.Envelope(
        bytes.fromhex(record.incarnation), bytes.fromhex(record.token), me.pid, me.started
    )
    plain.send_multipart([true.pack(), wire.encode(wire.Status(call=1))])
    assert plain.poll(300) == 0
    plain.close()
    context.term()
    host, port = record.endpoint.address.removeprefix("tcp://").split(":")
    with system_socket.create_connection((host, int(port))) as knocking:
        knocking.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    assert sa.segment(picture, "objects=1").text
    assert sa.unload().rung == "asked"


def test_lying_headers_fail_their_call_and_nothing_else(raw, worker, picture):
    socket, true = raw
    sa, _ = worker
    headers, buffers = pack([picture])
    lie = wire.ArrayHeader("uint8", [1 << 30, 1 << 30, 3], 0, picture.nbytes)
    for liar, data in (
        ([lie], buffers),
        (headers, []),
        (headers, [*buffers, b"more"]),
        ([wire.ArrayHeader("uint8", [48, 64, 3], 5, picture.nbytes)], buffers),
        ([wire.ArrayHeader("float32", [48, 64, 3], 0, picture.nbytes * 4)], buffers),
        ([wire.ArrayHeader("uint8", [picture.nbytes], 0, picture.nbytes)], buffers),
        (headers * 2, buffers),
    ):
        message = wire.Segment(call=7, keep_alive=1.0, prompts=["objects=1"], key_frames=liar)
        socket.send_multipart([true.pack(), wire.encode(message), *data])
        reply = wire.decode_from_worker(answer(socket)[1])
        assert isinstance(reply, wire.Failed)
        assert reply.code == "invalid_input"
        assert reply.call == 7
    assert sa.segment(picture, "objects=1").text


def test_frames_beyond_the_credit_stop_the_video(raw, worker, picture):
    import numpy as np

    socket, true = raw
    headers, buffers = pack([picture])
    opening = wire.Segment(
        call=3, keep_alive=1.0, prompts=["objects=1 pause=0.1"], key_frames=headers, tracked=True
    )
    socket.send_multipart([true.pack(), wire.encode(opening), *buffers])
    while not isinstance(wire.decode_from_worker(answer(socket)[1]), wire.Credit):
        pass
    many = np.zeros((FRAME_WINDOW + 20, 32, 32, 3), np.uint8)
    headers, buffers = pack([many])
    socket.send_multipart(
        [true.pack(), wire.encode(wire.Frames(call=3, start=0, frames=headers[0])), *buffers]
    )
    reply = None
    while not isinstance(reply, wire.Failed):
        reply = wire.decode_from_worker(answer(socket)[1])
    assert "granted" in reply.message


def test_a_message_of_too_many_frames_is_dropped(raw, worker, picture):
    socket, true = raw
    sa, _ = worker
    socket.send_multipart([true.pack(), wire.encode(wire.Status(call=1)), *[b"x"] * 1000])
    assert sa.segment(picture, "objects=1").text
