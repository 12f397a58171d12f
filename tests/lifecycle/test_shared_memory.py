"""Large arrays travel in memory that client and worker share; where that cannot be, as frames with the same bits."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import re
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sa2va_host.protocol import limits, shared_memory, wire
from sa2va_host.protocol.arrays import pack
from sa2va_host.protocol.shared_memory import Arena, Borrowed, Ledger

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="this system shares no memory by descriptor"
)
SIZE = 1 << 20
LARGE = np.random.default_rng(3).integers(0, 256, (600, 700, 3), dtype=np.uint8)


def arenas():
    """The memory files that this process has open, by inode."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()).startswith("/memfd:sa2va"):
                found[link.stat().st_ino] = link
        except OSError:
            continue
    return found


def mapped(pid):
    """What a process maps of such files: bytes of them that it has touched, by inode."""
    touched: dict[int, int] = {}
    inode = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) +(.*)", line)
        if head is not None:
            inode = int(head[1]) if head[2].startswith("/memfd:sa2va") else 0
        elif inode and line.startswith("Rss:"):
            touched[inode] = touched.get(inode, 0) + int(line.split()[1]) * 1024
    return touched


def sum_of(answer):
    return int(answer.text.split()[-1])


@pytest.fixture
def arena():
    made = Arena()
    assert made.offer is not None
    yield made
    made.close()


def test_a_large_picture_is_read_where_the_client_put_it(connect):
    sa = connect()
    pid = sa.load() and sa.status().pid
    assert sum_of(sa.chat("small", LARGE[:4])) == LARGE[:4].astype(int).sum()
    assert sum(mapped(pid).values()) == 0
    assert sum_of(sa.chat("large", LARGE)) == LARGE.astype(int).sum()
    assert sum(mapped(pid).values()) >= LARGE.nbytes


def test_whatever_lies_in_memory_otherwise_comes_as_it_looks(connect):
    sa = connect()
    sa.load()
    for picture in (LARGE[::-1], LARGE[:, ::2], np.asfortranarray(LARGE), LARGE.transpose(1, 0, 2)):
        np.testing.assert_array_equal(
            sa.segment(picture, "objects=1").logits, sa.segment(picture.copy(), "objects=1").logits
        )
        assert sum_of(sa.chat("x", picture)) == picture.astype(int).sum()


def test_a_picture_that_is_overwritten_while_it_waits_stays_what_it_was(connect, eventually):
    sa = connect()
    sa.load()
    pictures = [LARGE.copy(), LARGE[:16].copy()]
    sums = [int(picture.astype(int).sum()) for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(sa.chat, "steps=100 pause=0.01")
        eventually(lambda: sa.status().active, 5)
        calls = [pool.submit(sa.chat, "x", picture) for picture in pictures]
        eventually(lambda: len(sa.status().queued) == 2, 5)
        for picture in pictures:
            picture[:] = 0
        assert not first.done()
        assert [sum_of(call.result()) for call in calls] == sums


def test_masks_outlive_the_worker(connect, kill):
    sa = connect()
    sa.load()
    result = sa.segment(LARGE, "objects=3")
    kept = result.logits.copy()
    kill(result.worker.pid)
    np.testing.assert_array_equal(result.logits, kept)
    np.testing.assert_array_equal(sa.segment(LARGE, "objects=3").logits, kept)


def test_memory_is_used_again_and_given_back(connect, eventually):
    before = set(arenas())
    sa = connect()
    sa.load()
    (mine,) = set(arenas()) - before

    def bytes_held():
        return arenas()[mine].stat().st_blocks * 512

    for _ in range(30):
        sa.chat("x", LARGE)
    # A piece may come back a moment after the answer, so that the next call takes another one.
    assert LARGE.nbytes <= bytes_held() < 4 * LARGE.nbytes
    sa.unload()
    eventually(lambda: bytes_held() == 0, 2)
    sa.chat("x", LARGE)
    sa.close()
    assert mine not in arenas()


def test_calls_that_find_no_room_go_as_frames_and_wait_for_nobody(connect, monkeypatch, eventually):
    """There is room for two of the seven; each answer is of its own picture all the same, the first one's at last."""
    monkeypatch.setattr(shared_memory, "ARENA_BYTES", 2 * LARGE.nbytes + (1 << 16))
    sa = connect()
    sa.load()
    pictures = [LARGE + np.uint8(number) for number in range(7)]
    with ThreadPoolExecutor(7) as pool:
        calls = [pool.submit(sa.chat, "steps=100 pause=0.01", pictures[0])]
        eventually(lambda: sa.status().active, 5)
        calls += [pool.submit(sa.chat, "x", picture) for picture in pictures[1:]]
        eventually(lambda: len(sa.status().queued) == 6, 5)
        assert not calls[0].done()
        assert [sum_of(call.result()) for call in calls] == [
            picture.astype(int).sum() for picture in pictures
        ]


def test_a_client_that_is_killed_leaves_nothing(connect, client_program, eventually, kill):
    program = client_program(
        "import threading\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.load()\n"
        "picture = np.ones((1000, 1000, 3), np.uint8)\n"
        "for _ in range(4):\n"
        "    threading.Thread(target=sa.chat, args=('steps=1000 pause=0.01', picture), daemon=True).start()\n"
        "sys.stdin.read()\n"
    )
    bystander = connect()
    eventually(lambda: len(bystander.status().queued) == 3, 10)
    pid = bystander.status().pid
    assert len(mapped(pid)) == 1
    kill(program.pid)
    eventually(lambda: not mapped(pid), 2)
    assert bystander.chat("x", LARGE)
    assert bystander.status().pid == pid


SHM = {
    "small": "mount -t tmpfs -o size=64m tmpfs /dev/shm",
    "full": "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full",
    "closed": "mount -t tmpfs -o ro tmpfs /dev/shm",
}


@pytest.mark.parametrize("command", SHM.values(), ids=SHM)
def test_nothing_depends_on_the_folder_for_shared_memory(client_program, command):
    program = client_program(
        "import ctypes, os, subprocess\n"
        "CLONE_NEWNS = 0x20000\n"
        f"if ctypes.CDLL(None).unshare(CLONE_NEWNS) or os.system('mount --make-rprivate / && ' + {command!r}):\n"
        "    print('not permitted', flush=True); raise SystemExit\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.load()\n"
        "pictures = [np.full((3000, 3000, 3), value, np.uint8) for value in (1, 2, 3)]\n"
        "print(sa.chat('x', pictures).text.split()[-3:], flush=True)\n"
        "sa.unload()\n"
    )
    answer = program.communicate(timeout=60)[0].strip()
    if answer == "not permitted":
        pytest.skip("no mount namespace of our own here")
    assert answer == str([str(27_000_000 * value) for value in (1, 2, 3)])


def test_where_the_system_gives_no_memory_pictures_go_as_frames(connect, client_program):
    pid = connect().load() and connect().status().pid
    program = client_program(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "sa.load()\n"
        "print(sa.chat('x', np.ones((1000, 1000, 3), np.uint8)).text.split()[-1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    assert program.stdout.readline().strip() == "3000000"
    assert sum(mapped(pid).values()) == 0


def test_memory_that_cannot_be_set_aside_is_not_taken(arena, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    assert arena.take(SIZE) is not None
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert arena.take(2 * SIZE) is None
    assert pack([LARGE], place=arena.take)[1][0].nbytes == LARGE.nbytes


def test_a_worker_that_cannot_map_it_gets_frames(connect, monkeypatch):
    """What is offered is another file than the one that arrays are put into, as the worker finds out."""
    make = shared_memory._make

    def unsealed():
        fd, memory = make()
        os.close(fd)
        fd = os.memfd_create("other")
        os.ftruncate(fd, limits.ARENA_BYTES)
        return fd, memory

    monkeypatch.setattr(shared_memory, "_make", unsealed)
    sa = connect()
    sa.load()
    assert sum_of(sa.chat("x", LARGE)) == LARGE.astype(int).sum()
    assert not mapped(sa.status().pid)


def test_no_two_arrays_ever_share_a_byte(arena):
    """Eight threads take and drop pieces in any order; each finds in its own what it wrote."""
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        held = []
        for _ in range(300):
            piece = arena.take(rng.randrange(limits.MIN_SHARED_BYTES, 4 * SIZE))
            if piece is not None:
                value = rng.randrange(256)
                array = np.frombuffer(piece, np.uint8)
                array[::512] = value
                held.append((piece[1:], array[::512], value))
                del array
            rng.shuffle(held)
            while len(held) > rng.randrange(1, 8):
                data, samples, value = held.pop()
                if not (samples == value).all():
                    wrong.append(seed)
                del data, samples

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    assert arena.take(limits.ARENA_BYTES) is not None


def test_the_owner_itself_cannot_shrink_what_it_has_offered(arena):
    for size in (0, limits.ARENA_BYTES * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.offer.fd, size)
    assert os.fstat(arena.offer.fd).st_mode & 0o777 == 0o600


def test_a_lease_ends_when_the_last_view_of_it_is_dropped(arena):
    done: list[int] = []
    ledger = Ledger(arena)
    headers, buffers = pack([LARGE], place=arena.take)
    assert ledger.lend(buffers[0]) is buffers[0]
    ledger.is_open = True
    reference = memoryview(ledger.lend(buffers[0]))
    borrowed = Borrowed(arena.offer, os.getpid(), done.append)
    (view,) = borrowed.resolve(headers, [reference])
    picture = np.frombuffer(view, np.uint8).reshape(LARGE.shape)[10:]
    del view
    np.testing.assert_array_equal(picture, LARGE[10:])
    with pytest.raises(ValueError, match="read-only"):
        picture[0] = 0
    assert done == []
    del picture
    assert done == [1]
    here = weakref.ref(buffers[0].obj)
    del buffers
    assert here() is not None
    ledger.take_back(1)
    ledger.take_back(1)
    assert here() is None


@pytest.fixture
def raw(bare):
    """Says something to a worker, as a client would, and waits for how it ends."""
    client = bare()

    def ask(message, *buffers):
        client.send(message, *buffers)
        return client.wait_for(lambda reply: isinstance(reply, (wire.Ready, wire.Failed, wire.Answer)))

    return ask


def test_what_is_offered_is_mapped_only_if_it_is_what_it_must_be(raw, arena, tmp_path):
    true = arena.offer
    assert raw(wire.Hello(program="p", arena=true)).shares
    plain = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(plain, SIZE)
    pipe, _ = ends = os.pipe()
    loose, unsealed = (os.memfd_create("sa2va", os.MFD_ALLOW_SEALING) for _ in range(2))
    for fd in (loose, unsealed):
        os.ftruncate(fd, SIZE)
    os.fchmod(unsealed, 0o600)
    fcntl.fcntl(loose, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    lies = {
        "another inode": wire.SharedArena(true.fd, true.inode + 1, true.size),
        "too large": wire.SharedArena(unsealed, os.fstat(unsealed).st_ino, SIZE + 1),
        "nothing there": wire.SharedArena(2**31 - 1, true.inode, true.size),
        **{
            name: wire.SharedArena(fd, os.fstat(fd).st_ino, SIZE)
            for name, fd in {"disk": plain, "pipe": pipe, "loose": loose, "unsealed": unsealed}.items()
        },
    }
    for name, lie in lies.items():
        assert not raw(wire.Hello(program="p", arena=lie)).shares, name
    for fd in (plain, loose, unsealed, *ends):
        os.close(fd)


def test_a_reference_that_leads_elsewhere_fails_its_call(raw, arena):
    headers, buffers = pack([LARGE], place=arena.take)

    def call(offset, lease=1):
        message = wire.Chat(call=1, keep_alive=1.0, prompt="x", images=headers)
        return raw(message, shared_memory._REFERENCE.pack(lease, offset))

    assert isinstance(call(0), wire.Failed)
    assert raw(wire.Hello(program="p", arena=arena.offer)).shares
    assert call(0).text.endswith(f" {LARGE.astype(int).sum()}")
    for offset in (limits.ARENA_BYTES, limits.ARENA_BYTES - LARGE.nbytes + 1, 2**64 - 1):
        assert "shared memory" in call(offset).message
    assert call(0, lease=2**64 - 1).text
    assert buffers
