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
    _, masks, tracks, *_ = track(video=video)
    with Sa2VA(MODEL) as sa:
        expected = sa.segment_video(frames_of(clip), "objects=1")
    assert np.array_equal(tracks.answer.logits, expected.logits)
    assert np.array_equal(masks.numpy(), expected.masks(0.5)[0].astype(np.float32))


def test_nothing_found_in_a_video_is_an_empty_mask_for_each_frame(worker, video):
    _, masks, tracks, *_ = track("objects=0", video=video)
    assert masks.shape == (COUNT, 48, 64)
    assert not masks.any()
    assert tracks.frames == COUNT


def test_a_trimmed_video_is_followed_from_its_beginning_to_its_end(worker, comfy, clip):
    from comfy_api.video import Trimmed

    _, masks, *_ = track(video=Trimmed(clip, 4.5 * 1001 / 30000, 6 * 1001 / 30000))
    assert len(masks) == 6


@pytest.mark.parametrize("source", ["frames", "video"])
def test_key_frames_are_the_first_ones_or_spread_over_the_whole(worker, comfy, video, clip, source):
    frames = torch.from_numpy(np.stack(frames_of(clip))).float() / 255
    given = {"frames": frames} if source == "frames" else {"video": video}
    text, *_ = track(key_frames=3, **given)
    assert "[3] by" in text
    assert " at " not in text
    text, masks, *_ = track(key_frames=3, key_frame_sampling="uniform", **given)
    assert text.endswith(" at [0, 5, 11]")
    assert len(masks) == COUNT


def test_the_tracker_may_be_conditioned_on_masks(worker, video):
    assert track(video=video, condition_on="masks")[0].endswith(" on masks")


def test_the_model_is_asked_again_and_each_line_stays_one_object(worker, video):
    text, masks, tracks, *_ = track(
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
    _, masks, *_ = track(video=VideoFromFile(cut), ask_again="cuts", key_frames=2)
    assert len(masks) == 8
    (running,) = worker()
    assert running.finished_calls == 2


def test_asking_again_goes_with_the_first_frames_alone(comfy):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    def checked(**given):
        return Sa2VAVideoSegmentation.validate_inputs(model=MODEL, prompt="it", video=None, **given)

    assert checked() is True
    assert checked(key_frame_sampling="uniform", ask_again=None) is True, "a link is not known yet"
    refused = checked(key_frame_sampling="uniform", ask_again="cuts")
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


def film_of(output):
    """The frames of the preview on the node, and their rate."""
    import av
    import folder_paths

    (saved,) = output.ui.shown
    assert (saved["type"], saved["subfolder"]) == ("temp", "")
    with av.open(str(Path(folder_paths.get_temp_directory()) / saved["filename"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return frames, container.streams.video[0].average_rate


def execute(**given):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    return Sa2VAVideoSegmentation.execute(MODEL, "objects=1", 0.5, 5, **given)


def test_a_film_on_the_node_shows_the_objects_in_their_colours(worker, comfy, video, clip):
    from sa2va_plugins.comfyui.colours import colour

    output = execute(video=video, preview_opacity=1.0)
    frames, rate = film_of(output)
    assert len(frames) == COUNT
    assert frames[0].shape == (48, 64, 3)
    with_own_rate = av_rate(clip)
    assert abs(rate - with_own_rate) < with_own_rate / 50
    masks = output.args[1].numpy().astype(bool)
    inside = frames[0][masks[0]].astype(int)
    assert np.abs(np.median(inside, axis=0) - colour(0)).max() < 30
    assert film_of(execute(video=video, preview_fps=5.0))[1] == 5


def av_rate(clip):
    import av

    with av.open(str(clip)) as container:
        return container.streams.video[0].average_rate


def test_a_film_has_bounded_frames_and_pixels_and_the_length_of_the_video(worker, comfy, monkeypatch):
    from sa2va_plugins.comfyui import video_preview

    monkeypatch.setattr(video_preview, "MOST_FRAMES", 4)
    monkeypatch.setattr(video_preview, "LONGEST_SIDE", 32)
    frames, rate = film_of(execute(frames=torch.rand(10, 40, 64, 3), preview_fps=10.0))
    assert [frame.shape for frame in frames] == [(20, 32, 3)] * 4
    assert abs(rate - 10 / 3) < 0.05


def test_a_machine_without_an_encoder_gives_masks_and_no_film(worker, comfy, video, monkeypatch, caplog):
    from dataclasses import replace

    from sa2va_host.output import movie

    monkeypatch.setattr(movie, "H264", replace(movie.H264, names=("no-such-encoder",)))
    execution_of(comfy, connected=[1])
    output = execute(video=video)
    assert output.ui is None
    assert output.args[1].any()
    assert "The preview of the video cannot be made" in caplog.text


@pytest.mark.parametrize("source", ["frames", "video"])
def test_overlays_are_an_image_and_a_video_of_all_frames_where_they_are_connected(
    worker, comfy, video, clip, source
):
    from sa2va_plugins.comfyui.colours import draw

    given = {"video": video}
    if source == "frames":
        given = {"frames": torch.from_numpy(np.stack(frames_of(clip))).float() / 255}
    execution_of(comfy, connected=[3, 4])
    _, masks, tracks, overlay, film = execute(**given, preview_opacity=0.5).args
    assert masks.untyped_storage().nbytes() == 4
    for index, picture in enumerate(frames_of(clip)):
        expected = draw(picture, [tracks.mask(0, index, 0.5)], 0.5)
        assert np.array_equal(np.rint(overlay[index].numpy() * 255).astype(np.uint8), expected)
    decoded = frames_of(film.get_stream_source())
    assert len(decoded) == COUNT
    shown = np.rint(overlay.numpy() * 255)
    assert np.abs(np.stack(decoded) - shown).mean() < 6
    execution_of(comfy, connected=[0])
    *_, overlay, film = execute(**given).args
    assert overlay.untyped_storage().nbytes() == 4
    assert film is None


@pytest.mark.parametrize("source", ["frames", "video"])
def test_pictures_are_shown_while_a_video_is_tracked(worker, comfy, video, clip, source, monkeypatch):
    from sa2va_plugins.comfyui import video_preview

    monkeypatch.setattr(video_preview, "EVERY", 0.0)
    monkeypatch.setattr(video_preview, "LONGEST_SIDE", 32)
    given = {"video": video}
    if source == "frames":
        given = {"frames": torch.from_numpy(np.stack(frames_of(clip))).float() / 255}
    execute(**given)
    assert 1 <= len(comfy.previews) <= COUNT
    for kind, picture, longest in comfy.previews:
        assert (kind, picture.size, longest) == ("JPEG", (32, 24), 32)
    monkeypatch.setattr(video_preview, "EVERY", 1e9)
    comfy.previews.clear()
    execute(**given)
    assert len(comfy.previews) <= 1, "throttled"


def test_few_frames_are_kept_however_far_the_reader_is_ahead(comfy, monkeypatch):
    from sa2va_plugins.comfyui import video_preview

    monkeypatch.setattr(video_preview, "EVERY", 0.0)
    live = video_preview.LivePreview()
    for index in range(100):
        live._keep(index, np.zeros((1080, 1920, 3), np.uint8))
    assert len(live._kept) == video_preview._AHEAD
    assert {each.shape for each in live._kept.values()} == {(288, 512, 3)}


def test_max_objects_of_a_video_keeps_the_first(worker, comfy, video):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    execution_of(comfy, connected=[1, 2])
    values = Sa2VAVideoSegmentation.execute(MODEL, "objects=3", 0.5, 5, video=video, max_objects=1).args
    assert len(values[2]) == 1
    assert "Of 3 objects max_objects keeps 1" in comfy.server.texts[-1]
    assert torch.equal(values[1][0] > 0, torch.from_numpy(values[2].mask(0, 0, 0.5)))
