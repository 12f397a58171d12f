"""A VIDEO is decoded as it is followed, and the ways of following reach the worker."""

from pathlib import Path

import numpy as np
import pytest

from sa2va_host import Sa2VA
from sa2va_host.errors import InvalidInput
from tests.clips import pictures, write_clip

from .conftest import MODEL, execution_of

torch = pytest.importorskip("torch")

COUNT = 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve frames of 48 x 64, red but for a blue corner; the script finds what is red."""
    return write_clip(tmp_path / "clip.mp4", pictures(COUNT))


@pytest.fixture
def video(comfy, clip):
    from comfy_api.video import VideoFromFile

    return VideoFromFile(clip)


def track(prompt="objects=1", key_frames=5, **given):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    return Sa2VAVideoSegmentation.execute(MODEL, prompt, 0.5, key_frames, **given).args


def frames_of(clip):
    import av

    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_video_gives_the_masks_of_its_frames(worker, video, clip):
    _, masks, tracks = track(video=video)
    with Sa2VA(MODEL) as sa:
        expected = sa.segment_video(frames_of(clip), "objects=1")
    assert np.array_equal(tracks.answer.logits, expected.logits)
    assert np.array_equal(masks.numpy(), expected.masks(0.5)[0].astype(np.float32))


def test_nothing_found_in_a_video_is_an_empty_mask_for_each_frame(worker, video):
    _, masks, tracks = track("objects=0", video=video)
    assert masks.shape == (COUNT, 48, 64)
    assert not masks.any()
    assert tracks.frames == COUNT


def test_a_trimmed_video_is_followed_from_its_beginning_to_its_end(worker, comfy, clip):
    from comfy_api.video import Trimmed

    _, masks, _ = track(video=Trimmed(clip, 4.5 * 1001 / 30000, 6 * 1001 / 30000))
    assert len(masks) == 6


@pytest.mark.parametrize("source", ["frames", "video"])
def test_key_frames_are_the_first_ones_or_spread_over_the_whole(worker, comfy, video, clip, source):
    frames = torch.from_numpy(np.stack(frames_of(clip))).float() / 255
    given = {"frames": frames} if source == "frames" else {"video": video}
    text, *_ = track(key_frames=3, **given)
    assert "[3] by" in text
    assert " at " not in text
    text, masks, _ = track(key_frames=3, key_frame_sampling="uniform", **given)
    assert text.endswith(" at [0, 5, 11]")
    assert len(masks) == COUNT


def test_the_tracker_may_be_conditioned_on_masks(worker, video):
    assert track(video=video, condition_on="masks")[0].endswith(" on masks")


def test_the_model_is_asked_again_and_each_line_stays_one_object(worker, video):
    text, masks, tracks = track(
        "objects=2\nobjects=0", video=video, ask_again="every", ask_again_every=5, key_frames=2
    )
    assert tracks.names == ("objects=2", "objects=0")
    assert tracks.frames == len(masks) == COUNT
    assert [bool(tracks.mask(index, COUNT - 1, 0.5).any()) for index in range(2)] == [True, False]
    assert len(text.splitlines()) == 2, "the same answer to each asking is said once"
    (running,) = worker()
    assert running.finished_calls == 3


def test_the_model_is_asked_again_at_cuts(worker, comfy, tmp_path):
    from comfy_api.video import VideoFromFile

    grey = [np.full((48, 64, 3), 220, np.uint8)] * 4
    cut = write_clip(tmp_path / "cut.mp4", [*pictures(4), *grey])
    _, masks, _ = track(video=VideoFromFile(cut), ask_again="cuts", key_frames=2)
    assert len(masks) == 8
    (running,) = worker()
    assert running.finished_calls == 2


def test_asking_again_goes_with_the_first_frames_alone(comfy):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    assert Sa2VAVideoSegmentation.validate_inputs(MODEL) is True
    refused = Sa2VAVideoSegmentation.validate_inputs(MODEL, "uniform", "cuts")
    assert str(refused).endswith("set key_frame_sampling to first.")


def test_progress_of_a_video_has_an_end(worker, comfy, video):
    execution_of(comfy, connected=[])
    track(video=video)
    assert "tracking 1 of 12 frames" in comfy.server.texts
    assert comfy.bars[-1] == (COUNT, COUNT)


def test_what_is_no_video_is_one_sentence(comfy, tmp_path):
    from comfy_api.video import VideoFromFile

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InvalidInput, match="The video cannot be decoded"):
        track(video=VideoFromFile(tmp_path / "broken.mp4"))


@pytest.mark.parametrize("name", ["list.mp4", "list.ffconcat"])
@pytest.mark.parametrize("version", ["VideoFromFile", "Trimmed"])
def test_an_uploaded_playlist_leads_to_no_other_file(comfy, clip, name, version):
    from comfy_api import video

    upload = clip.with_name(name)
    upload.write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    more = (0.0, 0.0) if version == "Trimmed" else ()
    with pytest.raises(InvalidInput, match="is a playlist, which names other files"):
        track(video=getattr(video, version)(upload, *more))
