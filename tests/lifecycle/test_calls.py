"""What a call answers, in whose turn, and how it ends early."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sa2va_host import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    OutOfMemory,
    WorkerError,
)
from sa2va_host.calls.link import Link
from sa2va_host.events import LogLine, Progress, TextPiece
from sa2va_host.media import read_image


def expected(frame, objects):
    """What the script answers for a picture, computed here."""
    from PIL import Image

    small = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC))
    coarse = small[::4, ::4, 0].astype(np.float32)
    return np.stack([coarse - 100 * (index + 1) for index in range(objects)])


def test_construction_starts_nothing(connect, run):
    sa = connect()
    assert not sa.status()
    assert list(run.records()) == []


def test_an_image_gives_text_logits_and_who_answered(connect, picture):
    sa = connect()
    result = sa.segment(picture, "objects=2")
    assert result.text.startswith("objects=2 [1]")
    assert result.logits.shape == (2, 1, 8, 8)
    assert result.logits.dtype == np.float32
    np.testing.assert_array_equal(result.logits[:, 0], expected(picture, 2))
    assert result.size == (48, 64)
    assert result.worker.pid == sa.status().pid
    assert result.timings["scripted"] == 0.001
    assert result.masks().shape == (2, 48, 64)


def test_several_prompts_about_a_picture_are_one_call_with_an_answer_each(connect, picture):
    sa = connect()
    results = sa.segment_each(picture, ["objects=2", "objects=0", "objects=1"])
    assert [result.text.split(" ")[0] for result in results] == ["objects=2", "objects=0", "objects=1"]
    together = np.concatenate([result.logits[:, 0] for result in results])
    np.testing.assert_array_equal(together, expected(picture, 3))
    assert [len(result) for result in results] == [2, 0, 1]
    assert sa.status().finished_calls == 1


@pytest.mark.parametrize("prompts", [[], "the circle", ["x"] * 65, ["x", ""]])
def test_prompts_that_are_no_list_of_prompts(connect, picture, prompts, run):
    with pytest.raises(InvalidInput):
        connect().segment_each(picture, prompts)
    assert list(run.records()) == []


def test_no_object_is_an_answer(connect, picture):
    result = connect().segment(picture, "objects=0")
    assert len(result) == 0
    assert result.masks().shape == (0, 48, 64)


def test_a_file_is_a_picture(connect, picture, tmp_path):
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    result = connect().segment(path, "objects=1")
    np.testing.assert_array_equal(result.logits[:, 0], expected(read_image(path), 1))


def test_what_is_unusual_about_an_image_is_in_the_notes_of_the_answer(connect, tmp_path):
    from PIL import Image

    path = tmp_path / "a.jpg"
    Image.new("RGB", (32, 32), "white").save(path)
    sa = connect()
    assert sa.segment(path, "objects=1").notes == sa.chat("what?", path).notes == []
    path.write_bytes(path.read_bytes().removesuffix(b"\xff\xd9"))
    note = f"{path} lacks the mark that ends a JPEG file; its pixels are all there."
    assert sa.segment(path, "objects=1").notes == [note]
    assert [result.notes for result in sa.segment_each(path, ["objects=1", "objects=2"])] == [[note], [note]]
    assert sa.chat("what?", [path, Image.new("RGB", (8, 8))]).notes == [note]
    assert sa.chat("what?").notes == []


def test_an_image_may_be_content_an_open_file_or_a_tensor(connect, picture):
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    sa = connect()
    wanted = expected(picture, 1)
    sources = [stream.getvalue(), bytearray(stream.getvalue()), stream]
    torch = pytest.importorskip("torch", reason="the host works without torch")
    sources.append((torch.from_numpy(picture).float() / 255).requires_grad_())
    for source in sources:
        np.testing.assert_array_equal(sa.segment(source, "objects=1").logits[:, 0], wanted)
        assert sa.chat("what?", source).text


def test_the_model_sees_the_colours_that_a_profile_means(connect):
    path = Path(__file__).parents[1] / "cases" / "icc-p3-like.jpg"
    from PIL import Image

    logits = connect().segment(path, "objects=1").logits[:, 0]
    np.testing.assert_array_equal(logits, expected(read_image(path), 1))
    with Image.open(path) as image:
        assert (logits != expected(np.asarray(image), 1)).any()


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_video_streams_every_frame_in_order(connect, count):
    rng = np.random.default_rng(count)
    frames = [rng.integers(0, 256, (40, 56, 3), dtype=np.uint8) for _ in range(count)]
    result = connect().segment_video(iter(frames), "objects=2", key_frames="first:5")
    assert f"[{min(count, 5)}]" in result.text
    assert result.logits.shape == (2, count, 8, 8)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(result.logits[:, index], expected(frame, 2))


def test_a_video_takes_no_more_frames_than_it_may(connect, picture):
    """The stream is bounded: a slow worker does not make the client read the whole video ahead."""
    taken = 0
    most = 0
    done = 0

    def frames():
        nonlocal taken, most
        for _ in range(60):
            taken += 1
            most = max(most, taken - done)
            yield picture

    def on_event(event):
        nonlocal done
        if isinstance(event, Progress) and event.phase == "tracking":
            done = event.done

    connect(on_event=on_event).segment_video(frames(), "objects=1 pause=0.002", key_frames="first:1")
    assert taken == 60
    assert most <= 16


@pytest.mark.parametrize(("key_frames", "seen"), [("first:2", 2), ("first:9", 6)])
def test_the_first_frames_are_the_key_frames(connect, picture, key_frames, seen):
    result = connect().segment_video([picture] * 6, "objects=1", key_frames=key_frames)
    assert f"[{seen}]" in result.text
    assert result.logits.shape[1] == 6


@pytest.mark.parametrize("key_frames", ["first:0", "first:x", "last:2", "", [0, 3], None])
def test_other_key_frames_are_refused(connect, picture, key_frames, run):
    with pytest.raises(InvalidInput, match="first:5"):
        connect().segment_video([picture] * 6, "objects=1", key_frames=key_frames)
    assert list(run.records()) == []


def test_a_chat_answers_in_words(connect, picture):
    answer = connect().chat("how many", [picture, picture[:8]])
    total, part = picture.astype(int).sum(), picture[:8].astype(int).sum()
    assert answer.text.endswith(f"{total} {part}")


def test_events_tell_of_every_phase_on_the_callers_thread(connect, picture):
    seen = []
    sa = connect("scripted:load=0.1", on_event=lambda event: seen.append((event, threading.current_thread())))
    sa.segment(picture, "steps=3 objects=1")
    events = [event for event, _ in seen]
    phases = [event.phase for event in events if isinstance(event, Progress)]
    assert [phase for index, phase in enumerate(phases) if phase not in phases[:index]] == [
        "starting",
        "loading",
        "encoding",
        "generating",
        "tracking",
    ]
    assert Progress("loading", 500, 500, "bytes") in events
    assert "".join(event.text for event in events if isinstance(event, TextPiece)) == "word0 word1 word2 "
    assert any(isinstance(event, LogLine) for event in events)
    assert {thread for _, thread in seen} == {threading.current_thread()}


def test_load_says_what_was_loaded(connect):
    info = connect().load()
    assert (info.name, info.image_size, info.device) == ("scripted", 32, "cpu")


def test_a_warm_call_is_quick(connect, picture, within):
    sa = connect()
    sa.segment(picture, "objects=1")
    with within(0.5):
        for _ in range(10):
            sa.segment(picture, "objects=1")


def test_a_picture_may_be_overwritten_right_after_submit(connect, picture):
    sa = connect()
    sa.load()
    big = np.random.default_rng(1).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    for _ in range(3):
        mine = big.copy()
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(sa.segment, mine, "objects=1 pause=0.1")
            while not sa.status().active and not waiting.done():
                time.sleep(0.001)
            mine[:] = 0
            result = waiting.result()
        np.testing.assert_array_equal(result.logits[:, 0], expected(big, 1))


def test_threads_share_one_client(connect, picture):
    sa = connect()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: sa.segment(picture, f"objects={n % 3}"), range(24)))
    assert [len(result) for result in results] == [n % 3 for n in range(24)]
    assert len({result.worker.pid for result in results}) == 1


def test_clients_take_turns(connect, picture, promise):
    """A short call of one client does not wait for the long call of another."""
    long, short = connect(), connect()
    long.load()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(long.segment, picture, "steps=100000 pause=0.02 objects=1")
        while short.status().phase != "generating":
            time.sleep(0.01)
        begun = time.monotonic()
        short.segment(picture, "objects=1")
        promise(time.monotonic() - begun, 0.4)
        assert not waiting.done()
        long.close()
        assert isinstance(waiting.exception(), Cancelled)


def test_calls_of_one_client_keep_their_order(connect, picture):
    sa = connect()
    sa.load()
    ended: list[int] = []
    threads = []

    def one_call(number):
        sa.segment(picture, f"steps={2 if number else 100} pause=0.01 number={number}")
        ended.append(number)

    for number in range(6):
        thread = threading.Thread(target=one_call, args=(number,))
        thread.start()
        threads.append(thread)
        while not ended and len((status := sa.status()).active) + len(status.queued) < number + 1:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert ended == sorted(ended)


def test_a_video_that_waits_for_frames_does_not_block_its_own_client(connect, picture):
    """Frames may come from a generator that asks the same client for something else."""
    sa = connect()

    def frames():
        for _ in range(3):
            sa.chat("meanwhile")
            yield picture

    assert sa.segment_video(frames(), "objects=1", key_frames="first:1").logits.shape[1] == 3


@pytest.mark.parametrize(
    ("word", "kind"), [("memory", OutOfMemory), ("input", InvalidInput), ("bug", WorkerError)]
)
def test_an_engine_error_fails_its_own_call_only(connect, picture, word, kind):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    with pytest.raises(kind) as caught:
        sa.segment(picture, f"error={word}")
    assert str(caught.value)
    if word == "bug":
        assert "division by zero" in "\n".join(caught.value.log_tail)
    assert sa.segment(picture, "objects=1").worker.pid == pid


@pytest.mark.parametrize("prompt", ["", "  ", None, "x" * 200_000])
def test_a_bad_prompt_never_reaches_a_worker(connect, picture, run, prompt):
    with pytest.raises(InvalidInput):
        connect().segment(picture, prompt)
    assert list(run.records()) == []


def test_frames_of_another_size_stop_the_video(connect, picture):
    sa = connect()
    with pytest.raises(InvalidInput, match="Frame 1"):
        sa.segment_video([picture, picture[:10]], "objects=1", key_frames="first:1")
    assert sa.chat("still here").text


def test_a_deadline_fires_and_the_worker_stops_working(connect, picture, eventually, promise):
    sa = connect()
    sa.load()
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0\.5 s"):
        sa.segment(picture, "steps=1000 pause=0.01", timeout=0.5)
    assert time.monotonic() - begun >= 0.5
    promise(time.monotonic() - begun, 0.7)
    eventually(lambda: sa.status().phase == "ready", 1)


def test_what_on_event_raises_cancels_the_call(connect, picture, eventually):
    class Interrupted(Exception):
        pass

    def on_event(event):
        if isinstance(event, TextPiece):
            raise Interrupted

    sa = connect(on_event=on_event)
    with pytest.raises(Interrupted):
        sa.segment(picture, "steps=1000 pause=0.01")
    eventually(lambda: sa.status().phase == "ready", 1)


def test_ctrl_c_cancels_the_call(connect, picture, eventually, promise):
    import _thread

    sa = connect()
    sa.load()
    interrupted: list[float] = []

    def interrupt():
        eventually(lambda: sa.status().active, 5)
        interrupted.append(time.monotonic())
        _thread.interrupt_main()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        sa.segment(picture, "steps=100000 pause=0.01")
    promise(time.monotonic() - interrupted[0], 1.0)
    interrupter.join()
    eventually(lambda: sa.status().phase == "ready", 1)


def test_a_cancelled_queued_call_is_gone_at_once(connect, picture, eventually):
    sa = connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sa.segment, picture, "steps=100000 pause=0.01 objects=1")
        eventually(lambda: sa.status().active, 1)
        queued = pool.submit(sa.segment, picture, "objects=1", timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            queued.result()
        eventually(lambda: not sa.status().queued, 0.2)
        assert sa.status().active
        sa.close()
        assert isinstance(running.exception(), Cancelled)


def test_closing_ends_open_calls(connect, picture):
    sa = connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sa.segment, picture, "steps=1000 pause=0.01")
        time.sleep(0.2)
        sa.close()
        with pytest.raises(Cancelled):
            running.result(2)
    with pytest.raises(Cancelled):
        sa.chat("hello")


def test_closing_ends_a_call_that_is_just_connecting(connect, monkeypatch):
    """`close` comes while the call's thread makes the connection, which nobody would close later."""
    made, links = Link.__init__, []
    connecting, go_on = threading.Event(), threading.Event()

    def slowly(self, *arguments, **options):
        connecting.set()
        assert go_on.wait(10)
        made(self, *arguments, **options)
        links.append(self)

    monkeypatch.setattr(Link, "__init__", slowly)
    sa = connect()
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(sa.load)
        assert connecting.wait(10)
        closing = pool.submit(sa.close)
        while not (closing.running() or closing.done()):
            time.sleep(0.001)
        time.sleep(0.1)  # it is at the lock by now; without one it would have passed
        go_on.set()
        closing.result(10)
        assert isinstance(loading.exception(10), Cancelled)
    assert not any(link._thread.is_alive() for link in links)
    with pytest.raises(Cancelled, match="closed"):
        sa.load()
