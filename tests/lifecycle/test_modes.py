"""Key frames further on in the video, and asking again, through a real worker process."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host import InvalidInput


@pytest.fixture
def frames():
    return list(np.random.default_rng(0).integers(0, 256, (22, 48, 64, 3), dtype=np.uint8))


def test_spread_key_frames_travel_with_their_places_and_every_frame_is_answered(connect, frames):
    sa = connect()
    whole = sa.segment_video(frames, "objects=2", "first:3")
    spread = sa.segment_video(frames, "objects=2", "uniform:3")
    np.testing.assert_array_equal(spread.logits, whole.logits)
    assert "[3]" in spread.text
    assert "at [0, 10, 21]" in spread.text
    chosen = sa.segment_video(iter(frames), "objects=1", {0: frames[0], 7: frames[7]}, condition_on="masks")
    assert "at [0, 7] on masks" in chosen.text
    assert "at" not in whole.text


def test_asking_again_numbers_the_frames_through_and_makes_one_object_of_each_prompt(connect, frames):
    sa = connect()
    whole = sa.segment_video(frames, "objects=2")
    prompts = ["objects=2 presence=1", "objects=0", "objects=1 presence=1"]
    with sa.track(iter(frames), prompts, "first:2", ask_again="every:10") as track:
        found = list(track)
    assert [frame.index for frame in found] == list(range(22))
    assert {frame.logits.shape for frame in found} == {(3, 8, 8)}
    union, nothing = np.stack([frame.logits for frame in found], axis=1)[:2]
    np.testing.assert_array_equal(union, whole.logits.max(axis=0))
    assert not (nothing > -32).any()
    assert [answer.objects for answer in found[0].answers] == [1, 1, 1]
    np.testing.assert_allclose(found[5].presence[:2], [0.5, 0.0])
    assert "[2]" in found[21].text
    assert track.timings["scripted"] == pytest.approx(0.003)


def test_a_shot_without_objects_has_empty_frames(connect, frames):
    with connect().track(iter(frames), "objects=0", ask_again="every:12") as track:
        found = list(track)
    assert [frame.index for frame in found] == list(range(22))
    assert not any(frame.masks().any() for frame in found)
    assert {frame.masks().shape for frame in found} == {(1, 48, 64)}
    assert connect().segment_video(frames, "objects=0", ask_again="cuts").logits.shape == (1, 22, 8, 8)


def test_what_cannot_be_asked_is_refused_before_a_worker_is_needed(connect, frames):
    with pytest.raises(InvalidInput, match="first ones of each shot"):
        connect().track(frames, "objects=1", "uniform:3", ask_again="cuts")
    with pytest.raises(InvalidInput, match="ask_again"):
        connect().track(frames, "objects=1", ask_again="often")
    sizes = [*frames[:4], *(frame[:10] for frame in frames)]
    with pytest.raises(InvalidInput, match="Frame 4 is 64 x 10 pixels, the first one 64 x 48"):
        list(connect().track(sizes, "objects=1", ask_again="every:4"))


def test_an_impossible_place_is_refused(connect, frames):
    """By the worker too, whoever the client is."""
    from sa2va_host.protocol import wire

    sa = connect()
    with pytest.raises(InvalidInput, match="must ascend from 0"):
        sa._session.call(
            lambda call, headers: wire.Segment(
                call=call, keep_alive=1, prompts=["x"], key_frames=headers, tracked=True, key_positions=[0, 0]
            ),
            lambda: frames[:2],
        )
