"""A video as a stream: one result for each frame as it is tracked, bounded on both sides, ended at any moment."""

import asyncio
import contextlib
import io
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sa2va_host import AsyncSa2VA, Cancellation, Cancelled, InvalidInput, OutOfMemory
from sa2va_host.events import Event, Progress
from sa2va_host.protocol.limits import FRAME_WINDOW
from sa2va_host.video.clip import Selection, open_clip
from tests.clips import pictures, write_clip

from .conftest import COMMAND

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def frames():
    return list(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8))


def test_each_frame_is_what_the_whole_has_of_it(connect, frames):
    sa = connect()
    whole = sa.segment_video(frames, "objects=2", "first:3")
    with sa.track(iter(frames), "objects=2", "first:3") as track:
        found = list(track)
    assert [frame.index for frame in found] == list(range(12))
    np.testing.assert_array_equal(np.stack([frame.logits for frame in found], axis=1), whole.logits)
    np.testing.assert_array_equal(np.stack([frame.masks(0.4) for frame in found], axis=1), whole.masks(0.4))
    np.testing.assert_array_equal(found[5].probabilities(), whole.probabilities()[:, 5])
    assert track.text == whole.text
    assert (track.worker, found[0].size) == (whole.worker, (48, 64))
    assert track.timings["scripted"] == 0.001


def test_the_answer_and_the_presence_of_each_object_come_with_the_frames(connect, frames):
    with connect().track(frames, "objects=2 steps=3 presence=1") as track:
        found = list(track)
    assert {frame.text for frame in found} == {track.text}
    assert track.text.startswith("objects=2 steps=3")
    assert found[0].presence.dtype == np.float32
    np.testing.assert_allclose(found[0].presence, [0.5, 1 / (1 + np.exp(1.0))], rtol=1e-6)
    (without, *_) = connect().track(frames, "objects=1")
    assert without.presence is None


def test_several_prompts_share_a_pass_and_keep_their_objects_apart(connect, frames):
    sa = connect()
    with sa.track(iter(frames), ["objects=2", "objects=0", "objects=1 presence=1"]) as track:
        found = list(track)
    assert [(answer.text.split(" [")[0], answer.objects) for answer in track.answers] == [
        ("objects=2", 2),
        ("objects=0", 0),
        ("objects=1 presence=1", 1),
    ]
    assert len(found) == 12
    first, none, last = found[7].each()
    np.testing.assert_array_equal(first.logits, sa.segment_video(frames, "objects=2").logits[:, 7])
    assert (len(none), len(last)) == (0, 1)
    np.testing.assert_array_equal(np.concatenate([first.masks(), last.masks()]), found[7].masks())
    assert (first.text, last.text) == (track.answers[0].text, track.answers[2].text)


def test_a_frame_is_there_before_the_last_one_is_read(connect, frames):
    """Neither side runs ahead: what is read and not yet answered stays within the window."""
    read = 0

    def produced():
        nonlocal read
        for frame in frames * 5:
            read += 1
            yield frame

    with connect().track(produced(), "objects=1", "first:1") as track:
        for frame in track:
            time.sleep(0.003)
            assert read - frame.index <= 2 * FRAME_WINDOW + 1
    assert read == 60


def test_nothing_of_a_frame_stays_when_it_is_done(connect):
    """Memory is that of the window, however many frames there are."""
    random = np.random.default_rng(1)
    given: list[weakref.finalize[Any, Any]] = []

    def produced():
        for _ in range(200):
            frame = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            given.append(weakref.finalize(frame, int))
            yield frame

    answered: list[weakref.finalize[Any, Any]] = []
    for frame in connect().track(produced(), "objects=3", "first:2"):
        answered.append(weakref.finalize(frame.logits, int))
        assert sum(one.alive for one in given) <= FRAME_WINDOW
        assert sum(one.alive for one in answered) <= 2
    assert len(given) == len(answered) == 200


@pytest.mark.parametrize("key_frames", ["first:3", "uniform:3"])
def test_frames_may_all_come_in_one_array(connect, frames, key_frames):
    class Reused:
        """Reads into one buffer, as decoders do."""

        def __len__(self):
            return len(frames)

        def __iter__(self):
            buffer = np.empty_like(frames[0])
            for frame in frames:
                buffer[:] = frame
                yield buffer

    sa = connect()
    assert sa.segment_video(Reused(), "objects=1", key_frames).logits.tolist() == (
        sa.segment_video(frames, "objects=1", key_frames).logits.tolist()
    )


def test_without_objects_there_is_no_frame_and_a_text(connect, frames):
    with connect().track(iter(frames), "objects=0") as track:
        assert list(track) == []
    assert track.text.startswith("objects=0")


def test_without_objects_a_video_without_a_length_has_all_its_frames(connect, frames):
    found = connect().segment_video(iter(frames), "objects=0")
    assert found.masks().shape == (0, len(frames), *frames[0].shape[:2])


@pytest.mark.parametrize("ask_again", ["never", "every:5"])
def test_what_is_left_is_collected_from_the_next_frame_on(connect, frames, ask_again):
    sa = connect()
    whole = sa.segment_video(frames, "objects=1", ask_again=ask_again)
    track = sa.track(iter(frames), "objects=1", ask_again=ask_again)
    assert [next(track).index for _ in range(3)] == [0, 1, 2]
    left = track.collect()
    np.testing.assert_array_equal(left.logits, whole.logits[:, 3:])
    with pytest.raises(InvalidInput, match="Nothing is left"):
        track.collect()


def test_of_a_closed_track_nothing_is_left(connect, frames):
    sa = connect()
    fresh = sa.track(frames, "objects=1")
    fresh.close()
    with sa.track(frames, "objects=1") as begun:
        next(begun)
    nothing = sa.track(iter(frames), "objects=0")
    assert list(nothing) == []
    assert nothing.collect().masks().shape == (0, len(frames), *frames[0].shape[:2])
    nothing.close()
    for track in (fresh, begun, nothing):
        with pytest.raises(InvalidInput, match="Nothing is left"):
            track.collect()


def test_a_closed_or_failed_track_lets_go_of_the_frames(connect, frames):
    let_go = []

    def produced(last=None):
        try:
            yield from frames
            yield last
        finally:
            let_go.append(last)

    closed = connect().track(produced(), "objects=1 pause=0.02")
    next(closed)
    closed.close()
    assert let_go == [None]
    failed = connect().track(produced("missing.png"), "objects=1")
    with pytest.raises(InvalidInput, match=r"missing\.png"):
        list(failed)
    assert let_go == [None, "missing.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"frames": [], "ask_again": "cuts"}, "has no frames"),
        ({"frames": iter([]), "ask_again": "every:2"}, "has no frames"),
        ({"frames": np.zeros((48, 64, 3), np.uint8), "ask_again": "every:2"}, "one picture of shape"),
        ({"frames": "clip.mp4", "ask_again": "cuts"}, r"clip\.mp4 cannot be read: No such file"),
        ({"frames": None, "ask_again": "cuts"}, "one NoneType"),
        ({"frames": b"\x00\x00ftyp"}, "not the content of one file"),
        ({"frames": io.BytesIO(b"\x00\x00ftyp")}, "not the content of one file"),
        ({"frames": {"a.png", "b.png"}}, "one set, which has no order"),
        ({"frames": 5}, "one int"),
        ({"frames": CASES / "animated.png"}, r"animated\.png cannot be read: No such file"),
        ({"frames": CASES / "cut-frame" / "f000.jpg"}, "is a picture file, of which only the first"),
        ({"ask_again": 5}, "ask_again is 5"),
        ({"condition_on": "boxes"}, "condition_on is 'boxes'"),
        ({"frame_count": -4}, "frame_count is -4"),
        ({"frame_count": 4.5}, r"frame_count is 4\.5"),
        ({"frame_count": "12"}, "frame_count is '12'"),
        (
            {"key_frames": {0: np.zeros((48, 64, 3)), "a": np.zeros((48, 64, 3))}},
            r"key frames are \[0, 'a'\]",
        ),
        (
            {"key_frames": {0: np.zeros((48, 64, 3)), 1.5: np.zeros((48, 64, 3))}},
            r"key frames are \[0, 1\.5\]",
        ),
        ({"prompt": 5}, "one int was given"),
    ],
)
def test_what_cannot_be_followed_is_said_in_a_sentence(connect, frames, arguments, said):
    asked = {"frames": frames, "prompt": "objects=1", **arguments}
    with pytest.raises(InvalidInput, match=said):
        connect().track(**asked).collect()


def test_a_frame_s_number_is_that_in_the_whole_video(connect, frames):
    cut = [*frames[:9], frames[9][:10], *frames[10:]]
    with pytest.raises(InvalidInput, match="Frame 9 is"):
        connect().segment_video(cut, "objects=1", "first:1", ask_again="every:7")


def test_closing_ends_the_work_and_keeps_the_client(connect, frames, eventually, promise):
    sa = connect()
    track = sa.track((frame for _ in range(1000) for frame in frames), "objects=1 pause=0.02")
    assert [next(track).index for _ in range(3)] == [0, 1, 2]
    track.close()
    begun = time.monotonic()
    eventually(lambda: not sa.status().active, 1.0)
    promise(time.monotonic() - begun, 0.3)
    assert list(track) == []
    assert len(sa.segment(frames[0], "objects=1")) == 1


def test_a_track_that_is_forgotten_ends_too(connect, frames, eventually):
    sa = connect()
    next(sa.track((frame for _ in range(1000) for frame in frames), "objects=1 pause=0.02"))
    eventually(lambda: not sa.status().active, 1.0)


def test_another_thread_ends_it_between_two_frames(connect, frames):
    cancellation = Cancellation()
    found = []
    endless = (frame for _ in range(1000) for frame in frames)

    def watch():
        for frame in connect().track(endless, "objects=1 pause=0.02", cancellation=cancellation):
            found.append(frame.index)
            if len(found) == 3:
                threading.Thread(target=cancellation.cancel).start()

    with pytest.raises(Cancelled):
        watch()
    assert found[:3] == [0, 1, 2]
    assert len(found) <= 3 + FRAME_WINDOW


def test_what_goes_wrong_later_leaves_the_frames_before_it(connect, frames):
    found = []
    with pytest.raises(InvalidInput, match="Frame 9 is"):
        found.extend(connect().track([*frames[:9], frames[9][:10], *frames[10:]], "objects=1", "first:1"))
    with pytest.raises(OutOfMemory):
        list(connect().track(frames, "objects=1 error=memory"))


def test_progress_tells_the_rate_and_the_time_left(connect, frames):
    seen: list[Event] = []
    sa = connect(on_event=seen.append)
    list(sa.track(iter(frames), "objects=1 pause=0.01", frame_count=len(frames)))
    tracking = [event for event in seen if isinstance(event, Progress) and event.phase == "tracking"]
    assert (tracking[-1].done, tracking[-1].total, tracking[-1].seconds_left) == (12, 12, 0.0)
    rate = tracking[6].rate
    assert rate is not None
    assert rate > 0
    assert tracking[6].seconds_left == pytest.approx(5 / rate)


def test_progress_counts_the_whole_video_where_the_model_is_asked_again(connect, frames):
    seen: list[Event] = []
    list(connect(on_event=seen.append).track(frames, "objects=1", ask_again="every:5"))
    tracking = [event for event in seen if isinstance(event, Progress) and event.phase == "tracking"]
    assert [(event.done, event.total) for event in tracking] == [(done, 12) for done in range(1, 13)]
    assert tracking[-1].seconds_left == 0
    assert tracking[5].rate is not None, "the rate outlives the asking"


def test_a_picture_waits_for_two_frames_of_somebody_elses_video_at_most(connect, frames):
    video, picture = connect(), connect()
    endless = (frame for _ in range(1000) for frame in frames)
    with video.track(endless, "objects=1 pause=0.02") as track:
        next(track)
        stop, watched = threading.Event(), []

        def watch():
            for frame in track:
                watched.append(frame.index)
                if stop.is_set():
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        meanwhile = [
            picture.segment(frames[0], "objects=2 steps=8").timings["frames_meanwhile"] for _ in range(5)
        ]
        stop.set()
        watching.join()
    assert max(meanwhile) <= 2
    assert watched, "the video goes on"


def test_an_event_loop_takes_frame_after_frame(settings, connect, frames):
    whole = connect().segment_video(frames, "objects=1")

    async def produced():
        for frame in frames:
            await asyncio.sleep(0)
            yield frame

    async def body():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND) as sa:
            async with sa.track(produced(), "objects=1") as track:
                found = [frame async for frame in track]
            assert track.text == whole.text
            return found

    found = asyncio.run(asyncio.wait_for(body(), 20))
    np.testing.assert_array_equal(np.stack([frame.logits for frame in found], axis=1), whole.logits)


def test_an_event_loop_ends_it_by_leaving_and_by_cancelling(settings, connect, frames, eventually):
    sync = connect()

    async def body():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND) as sa:
            endless = (frame for _ in range(1000) for frame in frames)
            async with sa.track(endless, "objects=1 pause=0.01") as track:
                await anext(track)
            await asyncio.to_thread(eventually, lambda: not sync.status().active, 1.0)

            async def watch():
                async with sa.track(iter(frames), "objects=1 pause=5") as slow:
                    await anext(slow)

            watching = asyncio.create_task(watch())
            await asyncio.to_thread(eventually, lambda: sync.status().active, 5.0)
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await asyncio.to_thread(eventually, lambda: not sync.status().active, 6.0)

    asyncio.run(asyncio.wait_for(body(), 30))


@pytest.fixture
def film(tmp_path):
    """A file of twelve frames."""
    return write_clip(tmp_path / "film.mp4", pictures(12))


@pytest.mark.parametrize("key_frames", ["first:5", "uniform:4"])
@pytest.mark.parametrize("as_path", [str, Path, open_clip])
def test_a_video_s_path_stands_for_its_frames(connect, film, key_frames, as_path):
    sa = connect()
    expected = sa.segment_video([frame.picture for frame in open_clip(film)], "objects=2", key_frames)
    whole = sa.segment_video(as_path(film), "objects=2", key_frames)
    np.testing.assert_array_equal(whole.logits, expected.logits)
    assert (whole.text, whole.size) == (expected.text, (48, 64))
    with sa.track(as_path(film), ["objects=2", "objects=1"], key_frames) as track:
        assert [frame.index for frame in track] == list(range(12))
    assert track.notes == []


def test_the_length_of_a_file_is_that_of_the_progress(connect, film):
    totals = set()

    def note(event):
        if isinstance(event, Progress) and event.phase == "tracking":
            totals.add(event.total)

    connect(on_event=note).segment_video(film, "objects=1 step=0.05")
    assert totals == {12}


def test_folders_and_patterns_are_videos_by_their_paths_too(connect):
    sa = connect()
    assert sa.segment_video(CASES / "order-suffix", "objects=1").logits.shape[1] == 6
    assert (
        sa.segment_video(f"{CASES}/order-decimal/*.png", "objects=1", ask_again="every:2").logits.shape[1]
        == 6
    )
    assert sa.segment_video(CASES / "animated.webp", "objects=1", "uniform:3").logits.shape[1] == 6
    some = open_clip(CASES / "order-suffix", Selection(start=10))
    assert sa.segment_video(some, "objects=1").logits.shape[1] == 4
    assert sa.segment_video(CASES / "order-suffix", "objects=0").logits.shape[:2] == (0, 6)


def test_notes_name_what_of_a_clip_was_passed_over(connect):
    sa = connect()
    result = sa.segment_video(CASES / "cut-frame", "objects=1")
    assert result.logits.shape[1] == 11
    assert ["f011.jpg" in note for note in result.notes] == [True]
    spread = sa.segment_video(CASES / "cut-frame", "objects=1", "uniform:3")
    assert spread.logits.shape[1] == 11
    assert "f011.jpg" in spread.notes[0]


def test_a_path_is_a_video_for_asyncio_too(settings, connect, film):
    expected = connect().segment_video(film, "objects=1", "uniform:3")

    async def main():
        async with AsyncSa2VA("scripted:", settings=settings, command=COMMAND) as sa:
            whole = await sa.segment_video(film, "objects=1", "uniform:3")
            np.testing.assert_array_equal(whole.logits, expected.logits)
            async with sa.track(str(film), "objects=1") as track:
                assert [frame.index async for frame in track] == list(range(12))
            with pytest.raises(InvalidInput, match="No such file"):
                await sa.segment_video("nowhere.mp4", "objects=1")

    asyncio.run(main())
