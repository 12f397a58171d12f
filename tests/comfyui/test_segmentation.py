"""Image and video segmentation: what goes in, what comes out, and that nothing crashes downstream."""

import json
import threading
import time

import numpy as np
import pytest

from sa2va_host import Sa2VA
from sa2va_host.errors import InvalidInput, OutOfMemory, WorkerDied

from .conftest import MODEL, execution_of

torch = pytest.importorskip("torch")


def segment(image, prompt="objects=1", threshold=0.5, options=None, model=MODEL):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    return Sa2VAImageSegmentation.execute(model, image, prompt, threshold, options)


def track(frames, prompt="objects=1", threshold=0.5):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    return Sa2VAVideoSegmentation.execute(MODEL, prompt, threshold, 5, frames)


def test_masks_are_those_of_the_python_client_bit_for_bit(worker, image):
    _, masks, objects, *_ = segment(image, "objects=2").args
    with Sa2VA(MODEL) as sa:
        for index, picture in enumerate(image.numpy()):
            expected = sa.segment(picture, "objects=2").masks(0.5)
            assert np.array_equal(masks[index].numpy(), expected.any(axis=0).astype(np.float32))
            for each, one in zip(objects, expected, strict=True):
                assert np.array_equal(each[index].numpy(), one.astype(np.float32))
    assert masks.shape == (2, 48, 64)
    assert masks.dtype == torch.float32
    assert 0 < masks.sum() < masks.numel()


def test_tracks_are_those_of_the_python_client_bit_for_bit(worker, image):
    _, masks, tracks, *_ = track(image).args
    with Sa2VA(MODEL) as sa:
        expected = sa.segment_video(list(image.numpy()), "objects=1")
    assert np.array_equal(masks.numpy(), expected.masks(0.5)[0].astype(np.float32))
    assert np.array_equal(tracks.answer.logits, expected.logits)


def test_each_line_is_one_named_object_found_or_not(worker, image):
    text, _, masks, boxes, details, found, *_ = segment(
        image, "a objects=1\n\n b objects=0 \nc objects=1"
    ).args
    assert found.names == ("a objects=1", "b objects=0", "c objects=1")
    assert [bool(mask.any()) for mask in masks] == [True, False, True]
    assert [len(each) for each in boxes] == [2, 2]
    assert {each["object"] for each in json.loads(details)} == {"a objects=1", "c objects=1"}
    assert text.startswith("a objects=1, picture 1: a objects=1 [1]")


def test_lines_about_a_video_share_one_pass_and_keep_their_names(worker, image):
    text, _, tracks, *_ = track(image, "a objects=1\nb objects=0\nc objects=1").args
    assert tracks.names == ("a objects=1", "b objects=0", "c objects=1")
    assert [bool(tracks.mask(index, 0, 0.5).any()) for index in range(3)] == [True, False, True]
    assert text.splitlines()[1].startswith("b objects=0: ")
    (running,) = worker()
    assert running.finished_calls == 1


def test_boxes_and_scores_describe_the_masks(worker, image):
    _, masks, _, boxes, details, *_ = segment(image).args
    rows, columns = np.nonzero(masks[0].numpy())
    (box,) = boxes[0]
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    first = json.loads(details)[0]
    assert first["area"] == len(rows)
    assert 0.5 < first["score"] <= 1


def test_nothing_found_is_an_empty_mask_of_the_right_size(worker, image):
    _, masks, objects, boxes, details, *_ = segment(image, "objects=0").args
    assert masks.shape == (2, 48, 64)
    assert not masks.any()
    assert [each.shape for each in objects] == [(2, 48, 64)]
    assert boxes == [[], []]
    assert details == "[]"
    _, masks, *_ = track(image, "objects=0").args
    assert masks.shape == (2, 48, 64)
    assert not masks.any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 37, 53, 4), (1, 33, 20, 1), (21, 35, 3)])
def test_any_image_gives_masks_of_its_size(worker, shape):
    _, masks, *_ = segment(torch.rand(shape)).args
    assert masks.shape == (shape[0] if len(shape) == 4 else 1, *shape[-3:-1])


def test_values_beyond_0_and_1_are_cut_off(worker, image):
    wild = image * 3 - 1
    wild[0, 0, 0] = float("nan")
    assert torch.equal(segment(wild).args[1], segment(image).args[1])


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_says_what_to_do(comfy, image, prompt):
    with pytest.raises(InvalidInput, match="Say what to look for"):
        segment(image, prompt)


def test_an_image_without_pictures_is_refused(comfy):
    with pytest.raises(InvalidInput, match="Connect an IMAGE"):
        segment(torch.zeros(0, 8, 8, 3))


def test_frames_or_a_video_must_be_connected(comfy):
    with pytest.raises(InvalidInput, match="Connect one of them"):
        track(None)


def test_masks_that_nobody_uses_take_no_memory_and_connecting_them_runs_the_node_again(worker, comfy, image):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    execution_of(comfy, connected=[2])
    before = Sa2VAVideoSegmentation.fingerprint_inputs()
    _, masks, *_ = track(image).args
    assert masks.shape == (2, 48, 64)
    assert masks.untyped_storage().nbytes() == 4
    execution_of(comfy, connected=[0, 2])
    assert Sa2VAVideoSegmentation.fingerprint_inputs() == before
    execution_of(comfy, connected=[1, 2])
    assert Sa2VAVideoSegmentation.fingerprint_inputs() != before
    assert track(image).args[1].any()


def test_a_picture_makes_only_what_is_connected(worker, comfy, image):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    prints = set()
    for connected in ([0, 5], [1], [2], [3], [4]):
        execution_of(comfy, connected=connected)
        prints.add(Sa2VAImageSegmentation.fingerprint_inputs())
        _, masks, (first,), boxes, details, *_ = segment(image).args
        sizes = [masks.untyped_storage().nbytes(), first.untyped_storage().nbytes()]
        assert [size > 4 for size in sizes] == [1 in connected, 2 in connected]
        assert masks.shape == first.shape == (2, 48, 64)
        measured = bool({3, 4} & set(connected))
        assert [bool(each) for each in boxes] == [measured, measured]
        assert (details != "[]") == measured
    assert len(prints) == 5


def test_progress_has_phases_and_reaches_the_end(worker, comfy, image):
    execution_of(comfy, connected=[])
    segment(image, "objects=1 steps=3 pause=0.12", model=f"{MODEL}load=0.5")
    assert comfy.bars[-1] == (2, 2)
    phases = {text.removeprefix("1 of 2: ").split()[0] for text in comfy.server.texts}
    assert {"starting", "loading", "generating"} <= phases
    assert "2 of 2: generating 1 token" in comfy.server.texts


def test_an_interrupt_ends_the_node_within_a_second_and_the_next_run_works(worker, comfy, image):
    segment(image)
    timer = threading.Timer(0.3, lambda: setattr(comfy.management, "interrupted", True))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(comfy.management.InterruptProcessingException):
        segment(image, "objects=1 steps=1000 pause=0.05")
    assert time.monotonic() - begun < 1.3
    assert not comfy.management.interrupted
    assert segment(image, "another objects=1").args[1].any()


def test_a_step_that_hangs_after_an_interrupt_costs_the_worker_and_the_next_run_works(worker, comfy, image):
    segment(image)
    (first,) = worker()

    def interrupt():
        while not any(each.phase == "generating" for each in worker()):
            time.sleep(0.01)
        comfy.management.interrupted = True

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(comfy.management.InterruptProcessingException):
        segment(image, "objects=1 sleep=600 at=1 steps=2")
    interrupting.join()
    while any(each.pid == first.pid for each in worker()):
        time.sleep(0.01)
    assert segment(image, "another objects=1").args[1].any()
    (second,) = worker()
    assert second.pid != first.pid


def test_errors_of_the_worker_are_one_sentence_with_what_to_do(worker, image):
    with pytest.raises(OutOfMemory, match="The script has no memory"):
        segment(image, "error=memory")
    with pytest.raises(WorkerDied, match="The next call starts a new worker"):
        segment(image, "die=SIGKILL")
    assert segment(image).args[1].any()


def test_the_node_says_once_that_the_bundled_model_answers_for_want_of_another(
    worker, comfy, image, monkeypatch, caplog
):
    from sa2va_plugins.comfyui.chat import Sa2VAChat
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    pytest.importorskip("transformers")
    monkeypatch.delenv("SA2VA_WORKER_PYTHON", raising=False)
    monkeypatch.setenv("SA2VA_DEVICE", "cpu")
    execution_of(comfy, connected=[0])
    words = "It knows drawn shapes only"
    segment(image, "the white square\nthe star", model="auto")
    assert comfy.server.texts[-1].count(words) == 1  # two pictures, two prompts
    assert caplog.text.count(words) == 1
    Sa2VAVideoSegmentation.execute("auto", "the white square", 0.5, 2, frames=image)
    assert comfy.server.texts[-1].count(words) == 1
    answer = Sa2VAChat.execute("auto", "how many squares are there?", 5, image)
    assert answer.ui.shown.count(words) == 1
    assert words not in answer.args[0]
    segment(image, "the white square", model="sa2va-tiny")
    assert words not in comfy.server.texts[-1]


def test_a_batch_of_objects_has_those_of_the_first_picture_first(worker, image):
    _, _, each, *_, batch, _, _, _ = segment(image, "objects=2").args
    assert batch.shape == (4, 48, 64)
    for place, (picture, number) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(batch[place], each[number][picture])
    assert batch.any()


def test_boxes_come_as_comfyui_s_own_nodes_want_them(worker, image):
    _, _, _, boxes, details, _, _, bounding, *_ = segment(image, "objects=2").args
    assert [len(each) for each in bounding] == [len(each) for each in boxes]
    first = bounding[0][0]
    x0, y0, x1, y1 = boxes[0][0]
    told = json.loads(details)[0]
    assert first == {
        "x": x0,
        "y": y0,
        "width": x1 - x0,
        "height": y1 - y0,
        "label": told["object"],
        "score": told["score"],
    }


def test_the_overlay_is_the_host_s_and_of_full_size(worker, image):
    from sa2va_host.masks.masks import overlay

    values = segment(image, "objects=2").args
    drawn = values[8]
    assert drawn.shape == (2, 48, 64, 3)
    for index in range(2):
        masks = [each[index].numpy().astype(bool) for each in values[2]]
        expected = overlay((image[index].numpy() * 255).astype(np.uint8), masks)
        assert np.array_equal(np.rint(drawn[index].numpy() * 255).astype(np.uint8), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_cut_out_is_the_picture_under_its_mask(worker, image, channels):
    given = image * 0.9
    given = torch.cat((given, torch.full((2, 48, 64, 1), 0.5)), dim=3)[..., :channels]
    values = segment(given).args
    masks, cut = values[1], values[9]
    assert cut.shape == (2, 48, 64, 4)
    assert masks.any()
    assert torch.equal(cut[..., 3], masks * (0.5 if channels == 4 else 1.0))
    colours = given[..., :3].expand(2, 48, 64, 3)
    assert torch.equal(cut[..., :3], colours * masks[..., None])


def test_overlays_and_batches_that_nobody_uses_take_no_memory(worker, comfy, image):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    prints = set()
    for connected in ([0], [6], [7], [8], [9]):
        execution_of(comfy, connected=connected)
        prints.add(Sa2VAImageSegmentation.fingerprint_inputs())
        *_, batch, boxes, overlay, cut = segment(image, "objects=2").args
        made = [value.untyped_storage().nbytes() > 4 for value in (batch, overlay, cut)]
        assert made == [6 in connected, 8 in connected, 9 in connected]
        assert [bool(each) for each in boxes] == [7 in connected] * 2
        assert (batch.shape, overlay.shape, cut.shape) == ((4, 48, 64), (2, 48, 64, 3), (2, 48, 64, 4))
    assert len(prints) == 5


def test_max_objects_keeps_the_first_and_says_so_without_another_answer(worker, comfy, image):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    def limited(prompt, most):
        return Sa2VAImageSegmentation.execute(MODEL, image, prompt, 0.5, None, most).args

    execution_of(comfy, connected=list(range(10)))
    everything = limited("objects=3", 0)
    assert "max_objects" not in "".join(comfy.server.texts)
    kept = limited("objects=3", 2)
    assert "Of 3 objects max_objects keeps 2" in comfy.server.texts[-1]
    assert len(kept[2]) == 2
    assert all(torch.equal(*pair) for pair in zip(kept[2], everything[2], strict=False))
    assert [len(each) for each in kept[3]] == [2, 2]
    assert len(kept[5]) == 2
    assert len(kept[6]) == 4
    lines = limited("a objects=1\nb objects=0\nc objects=1", 2)
    assert lines[5].names == ("a objects=1", "b objects=0")
    assert len(limited("objects=3", 9)[2]) == 3


UNKNOWN = None
"""What ComfyUI passes for a link while it validates."""


def test_what_is_wrong_is_told_before_anything_runs():
    from sa2va_plugins.comfyui.chat import Sa2VAChat
    from sa2va_plugins.comfyui.refine_edges import Sa2VARefineEdges
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    empty = "The prompt is empty. Say what to look for, such as 'the red circle'."
    for node, given in (
        (Sa2VAImageSegmentation, {}),
        (Sa2VAVideoSegmentation, {"video": UNKNOWN}),
        (Sa2VAChat, {}),
    ):
        for prompt in ("", " \n ", "<image>"):
            assert node.validate_inputs(model=MODEL, prompt=prompt, **given) == empty
        assert node.validate_inputs(model=MODEL, prompt="the star", **given) is True
        assert node.validate_inputs(model=UNKNOWN, prompt=UNKNOWN, **given) is True
        assert node.validate_inputs(model="", prompt="the star", **given) == "Choose a model."
    video = Sa2VAVideoSegmentation.validate_inputs
    asked = {"model": MODEL, "prompt": "the star"}
    assert video(**asked) == "Neither frames nor video is connected. Connect one of them."
    both = video(**asked, frames=UNKNOWN, video=UNKNOWN)
    assert both == "Both frames and video are connected. Connect one of them."
    assert video(**asked, frames=UNKNOWN) is True
    assert str(Sa2VARefineEdges.validate_inputs()).startswith("Neither mask nor tracks is connected.")
    assert str(Sa2VARefineEdges.validate_inputs(mask=UNKNOWN, tracks=UNKNOWN)).startswith(
        "Both mask and tracks"
    )
    assert Sa2VARefineEdges.validate_inputs(tracks=UNKNOWN) is True
