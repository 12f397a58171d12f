"""Nothing runs twice for the same question: the worker itself says how many calls it has had."""

import os
import re
import threading

import numpy as np
import pytest

from sa2va_host import Sa2VA, stop_worker
from sa2va_host.config import load_settings
from sa2va_host.errors import ConfigError, OutOfMemory
from sa2va_host.generation import Generation
from tests.clips import pictures, write_clip
from tests.model_options import UNCHANGED

from .conftest import MODEL, execution_of

torch = pytest.importorskip("torch")


@pytest.fixture
def calls(worker):
    """How many calls the one worker has had; none if there is none."""
    return lambda: sum(each.finished_calls for each in worker())


def segment(image, prompt="objects=1", threshold=0.5, options=None, model=MODEL):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    return Sa2VAImageSegmentation.execute(model, image, prompt, threshold, options).args


def track(prompt="objects=1", threshold=0.5, key_frames=2, options=None, **given):
    from sa2va_plugins.comfyui.segment_video import Sa2VAVideoSegmentation

    return Sa2VAVideoSegmentation.execute(MODEL, prompt, threshold, key_frames, options=options, **given).args


def chat(prompt="objects=1", image=None, options=None, **given):
    from sa2va_plugins.comfyui.chat import Sa2VAChat

    return Sa2VAChat.execute(MODEL, prompt, 3, image, options=options, **given)


def model_options(**changed):
    """What the node Model Options gives."""
    from sa2va_plugins.comfyui.model_options import Sa2VAModelOptions

    return Sa2VAModelOptions.execute(**UNCHANGED | changed).args[0]


def test_dials_and_wires_of_an_image_do_not_ask_again_and_masks_follow_them(calls, comfy, image):
    image = image * 0.6  # what the script is unsure about
    with Sa2VA(MODEL) as sa:
        expected = {
            threshold: np.stack([sa.segment(each, "objects=2").masks(threshold) for each in image.numpy()])
            for threshold in (0.2, 0.5, 0.9)
        }
    before = calls()
    for connected in ([5], [1, 5], [1, 2, 3, 4, 5]):
        for threshold, masks in expected.items():
            execution_of(comfy, connected)
            _, union, each, boxes, *_ = segment(image, "objects=2", threshold)
            if 1 in connected:
                assert np.array_equal(union.numpy(), masks.any(axis=1))
            if 2 in connected:
                assert np.array_equal(np.stack([one.numpy() for one in each], axis=1), masks)
            assert any(map(bool, boxes)) == (3 in connected and masks.any())
    assert calls() == before + 2


def test_dials_and_wires_of_a_video_do_not_ask_again(calls, comfy, image):
    execution_of(comfy, [2])
    _, nothing, first, *_ = track(frames=image)
    assert not nothing.any()
    execution_of(comfy, [1, 2])
    for threshold in (0.3, 0.7):
        _, masks, tracks, *_ = track(threshold=threshold, frames=image)
        assert np.array_equal(masks[1].numpy(), first.mask(0, 1, threshold))
        assert np.array_equal(tracks.answer.logits, first.answer.logits)
    assert calls() == 1


def test_a_batch_in_which_one_image_changed_asks_about_that_one(calls, image):
    batch = torch.cat([image, image.flip(1) * 0.9])
    segment(batch)
    assert calls() == 4
    batch[2, 0, 0] = 0.5
    changed = segment(batch)[1]
    assert calls() == 5
    segment(batch.flip(0))
    assert calls() == 5
    segment(batch[[0, 0, 1]])
    assert calls() == 5
    assert torch.equal(segment(batch[2:3])[1][0], changed[2])
    segment(batch[:, :, :-1])
    assert calls() == 9, "another size is another image"


def test_the_same_image_twice_in_a_batch_is_asked_about_once(calls, image):
    masks = segment(image[[0, 1, 0, 0]])[1]
    assert calls() == 2
    assert torch.equal(masks[0], masks[3])


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "objects=2"},
        {"prompt": "objects=1\nobjects=2"},
        {"key_frames": 1},
        {"key_frame_sampling": "uniform", "key_frames": 1},
        {"condition_on": "masks"},
        {"ask_again": "every", "ask_again_every": 1},
    ],
    ids=str,
)
def test_another_question_about_a_video_is_asked_and_the_first_is_remembered(calls, image, changed):
    first = track(frames=image)
    assert calls() == 1
    other = track(frames=image, **changed)
    asked = calls()
    assert asked > 1
    assert track(frames=image, **changed)[0] == other[0]
    assert track(frames=image)[0] == first[0]
    assert calls() == asked


def test_the_same_frames_as_an_image_batch_and_as_a_video_are_two_questions(calls, image):
    segment(image)
    track(frames=image)
    chat(image=image)
    assert calls() == 4


def test_a_video_file_is_known_by_what_is_on_disk(calls, comfy, tmp_path):
    from comfy_api.video import Trimmed, VideoFromFile

    clip = write_clip(tmp_path / "clip.mp4", pictures(12))
    other = write_clip(tmp_path / "other.mp4", pictures(12)[::-1])
    size = max(clip.stat().st_size, other.stat().st_size)
    for each in (clip, other):  # what follows the last box of an MP4 file is passed over
        each.write_bytes(each.read_bytes().ljust(size, b"\0"))
    about = clip.stat()
    first = track(video=VideoFromFile(clip))
    assert np.array_equal(track(video=VideoFromFile(clip))[2].answer.logits, first[2].answer.logits)
    assert calls() == 1
    trims = [(4.5 * 1001 / 30000, 6 * 1001 / 30000), (4.5 * 1001 / 30000, 0.0)]
    for _ in range(2):
        assert [track(video=Trimmed(clip, *trim))[2].frames for trim in trims] == [6, 7]
    assert calls() == 3
    clip.write_bytes(other.read_bytes())
    os.utime(clip, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (clip.stat().st_size, clip.stat().st_mtime_ns) == (size, about.st_mtime_ns)
    track(video=VideoFromFile(clip))
    assert calls() == 4, "another content of the same size and time of modification"


def test_a_video_in_memory_is_known_by_its_content(calls, comfy, tmp_path):
    import io

    class InMemory:
        def __init__(self, content):
            self._content = io.BytesIO(content)

        def get_stream_source(self):
            self._content.seek(0)
            return self._content

        def get_dimensions(self):
            return 64, 48

        def get_duration(self):
            return 0.4

    InMemory.__name__ = "VideoFromFile"
    content = [
        write_clip(tmp_path / f"{name}.mp4", frames).read_bytes()
        for name, frames in (("a", pictures(12)), ("b", pictures(12)[::-1]))
    ]
    for each in (content[0], content[0], content[1], content[0]):
        track(video=InMemory(each))
    assert calls() == 2


def test_options_that_may_change_an_answer_ask_again_and_the_others_do_not(calls, image):
    one = image[:1]
    first = segment(one)[0]
    for same in (
        {"seed": 7},
        {"temperature": 0.5, "top_p": 0.5},
        {"keep_alive": "for ever"},
        {"device": "auto"},
    ):
        segment(one, options=model_options(**same))
        assert calls() == 1
    segment(one, options=model_options(max_new_tokens=9))
    segment(one, options=model_options(repetition_penalty=1.5))
    assert calls() == 3
    other = segment(one, options=model_options(dtype="bfloat16"))[0]
    assert other != first, "the script says which process answers"
    assert segment(one, options=model_options(dtype="bfloat16"))[0] == other
    assert segment(one)[0] == first


def test_with_sampling_the_seed_belongs_to_the_question(calls, image):
    from sa2va_plugins.comfyui.options import Options

    for seed in (1, 1, 2, 1):
        segment(image[:1], options=model_options(do_sample=True, seed=seed))
        track(frames=image, options=model_options(do_sample=True, seed=seed))
    assert calls() == 4
    for _ in range(2):
        segment(image[:1], options=Options(generation=Generation(do_sample=True)))
    assert calls() == 6, "without a seed each answer is another"


def test_a_chat_is_not_repeated_unless_words_are_drawn_at_random(calls, comfy, image, tmp_path):
    from comfy_api.video import VideoFromFile

    video = VideoFromFile(write_clip(tmp_path / "clip.mp4", pictures(12)))
    asked = [{}, {"image": image}, {"video": video}, {"image": image, "video": video}]
    first = [chat(**each).args[0] for each in asked]
    assert [chat(**each).args[0] for each in asked] == first
    assert len(set(first)) == calls() == 4
    for _ in range(2):
        chat(options=model_options(do_sample=True))
    assert calls() == 6


def test_an_earlier_answer_needs_no_worker_and_the_node_says_what_it_is(worker, comfy, image):
    execution_of(comfy, [])
    first, video = segment(image), track(frames=image)
    (running,) = worker()
    stop_worker(running)
    assert torch.equal(segment(image)[1], first[1])
    who, *answer = comfy.server.texts[-1].splitlines()
    assert answer == first[0].splitlines()
    assert who.startswith(f"{MODEL}: ")
    assert who.endswith(" s, 2 of 2 answers are earlier ones")
    assert comfy.bars[-1] == (2, 2)
    assert track(frames=image)[0] == video[0]
    assert comfy.server.texts[-1].splitlines()[0].endswith(" s, the earlier answer")
    assert worker() == []


def test_a_worker_that_is_not_to_stay_does_not_stay_after_an_earlier_answer(worker, image):
    segment(image)
    assert worker()
    segment(image, options=model_options(keep_alive="unload now"))
    assert worker() == []


def test_replaced_files_of_a_checkpoint_are_another_model(calls, comfy, worker, image, tmp_path):
    from sa2va_plugins.comfyui.model_list import register_folder

    register_folder()
    folder = tmp_path / "models" / "sa2va" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "sa2va_chat"}')
    weights = folder / "model.safetensors"
    weights.write_bytes(b"weights")
    about = weights.stat()
    for _ in range(2):
        segment(image[:1], model="mine")
    assert calls() == 1
    (first,) = worker()

    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(about.st_atime_ns, about.st_mtime_ns + 10**9))
    for _ in range(2):
        segment(image[:1], model="mine")
    assert calls() == 2, "a worker of the new files was asked, once"
    (second,) = {running.pid for running in worker()} - {first.pid}
    assert [running.finished_calls for running in worker() if running.pid == second] == [1]


def test_errors_and_interrupted_calls_are_not_kept(calls, comfy, image):
    from sa2va_plugins.comfyui.result_cache import RESULTS

    for _ in range(2):
        with pytest.raises(OutOfMemory):
            segment(image, "error=memory")
    timer = threading.Timer(0.3, lambda: setattr(comfy.management, "interrupted", True))
    timer.start()
    with pytest.raises(comfy.management.InterruptProcessingException):
        track("objects=1 steps=1000 pause=0.05", frames=image)
    assert len(RESULTS) == 0


def test_the_memory_for_answers_is_bounded_and_the_oldest_go(calls, monkeypatch, image):
    from sa2va_plugins.comfyui.result_cache import OVERHEAD, RESULTS

    one = 2 * 8 * 8 * 4 + OVERHEAD  # logits of two objects
    monkeypatch.setenv("SA2VA_COMFYUI_CACHE_BYTES", str(3 * one + OVERHEAD))
    batch = torch.stack([image[0] * share for share in (1.0, 0.9, 0.8, 0.7, 0.6)])
    segment(batch, "objects=2")
    assert calls() == 5
    assert len(RESULTS) == 3
    assert 3 * one < RESULTS.bytes <= 3 * one + OVERHEAD
    segment(batch[2:3], "objects=2")
    assert calls() == 5
    segment(batch[:1], "objects=2")
    segment(batch[2:3], "objects=2")
    assert calls() == 6, "what was used last stays"
    segment(batch[3:4], "objects=2")
    assert calls() == 7
    track("objects=99", frames=image)
    assert len(RESULTS) == 3, "what is larger than all there is drives nobody out"
    monkeypatch.setenv("SA2VA_COMFYUI_CACHE_BYTES", "0")
    for _ in range(2):
        segment(batch[3:4], "objects=2")
    assert calls() == 10


def test_logits_that_are_kept_cannot_be_written_to(worker, image):
    tracks = track(frames=image)[2]
    with pytest.raises(ValueError, match="read-only"):
        tracks.answer.logits[:] = 0


def test_freeing_the_node_cache_forgets_and_unloading_does_not(worker, comfy, image):
    import execution

    from sa2va_plugins.comfyui.memory import follow_comfyui
    from sa2va_plugins.comfyui.result_cache import RESULTS
    from sa2va_plugins.comfyui.unload import unload

    for _ in range(2):
        follow_comfyui()
    executor = execution.PromptExecutor()
    segment(image)
    unload(force=False)
    comfy.management.unload_all_models()
    segment(image)
    assert worker() == []
    executor.outputs["1"] = "an output"
    executor.reset()
    assert executor.outputs == {}
    assert RESULTS.bytes == len(RESULTS) == 0
    segment(image)
    assert len(worker()) == 1


def test_a_comfyui_without_that_moment_says_so(comfy, monkeypatch, caplog):
    import execution

    from sa2va_plugins.comfyui.memory import follow_comfyui

    monkeypatch.delattr(execution.PromptExecutor, "reset")
    follow_comfyui()
    assert "up to the setting comfyui_cache_bytes" in caplog.text


def test_the_node_names_the_model_that_answered_and_warns_only_where_nobody_chose_the_bundled_one(
    worker, comfy, image, monkeypatch
):
    pytest.importorskip("transformers")
    monkeypatch.delenv("SA2VA_WORKER_PYTHON", raising=False)
    monkeypatch.setenv("SA2VA_DEVICE", "cpu")
    execution_of(comfy, connected=[0])
    for model, earlier in (("auto", False), ("sa2va-tiny", True), ("auto", True)):
        text, *_ = segment(image[:1], "the white square", model=model)
        who, answer, *notes = comfy.server.texts[-1].splitlines()
        assert answer == text
        beware = ", which knows drawn shapes only" if model == "auto" else ""
        assert who.startswith(f"sa2va-tiny{beware}: ")
        assert who.endswith("the earlier answer") == earlier
        assert [("drawn shapes only" in note) for note in notes] == ([True] if model == "auto" else [])
    (running,) = worker()
    assert running.finished_calls == 1


@pytest.mark.parametrize("tag", ["<img src=x onerror=alert(1)>", "</div>", "<!-- ", "<?php", "<<b>>"])
def test_an_answer_that_looks_like_html_is_none_on_the_node(worker, comfy, image, tag):
    """Older front ends show a node's text as HTML, in which no tag begins before an invisible word joiner."""
    execution_of(comfy, [])
    answer = chat(f"steps=1 2 < 3 {tag}")
    assert tag in answer.args[0]
    shown = comfy.server.texts[-1]
    assert not re.search("<[A-Za-z/!?]", shown)
    assert tag in shown.replace("\u2060", "")
    assert "2 < 3" in shown


def test_a_long_answer_is_shortened_on_the_node_alone(worker, comfy, image):
    execution_of(comfy, [])
    words = "objects=1 " + "word " * 200
    answer = chat(words)
    assert answer.args[0].startswith(words)
    who, shown = comfy.server.texts[-1].splitlines()
    assert len(shown) <= 400
    assert shown.startswith("objects=1 word word")
    assert shown.endswith(" …")
    assert who.startswith(f"{MODEL}: ")
    assert answer.ui.shown.startswith(answer.args[0])
    assert f"\n\n{MODEL}: " in answer.ui.shown


def test_a_seed_stays_as_it_is_after_each_run(comfy, monkeypatch):
    from types import SimpleNamespace

    from comfy_api.latest import io

    from sa2va_plugins.comfyui.model_options import Sa2VAModelOptions

    def control():
        (seed,) = [each for each in Sa2VAModelOptions.define_schema().inputs if each.id == "seed"]
        return seed.options["control_after_generate"]

    assert control() is True, "older versions know nothing else, and saved workflows have the control's value"
    monkeypatch.setattr(io, "ControlAfterGenerate", SimpleNamespace(fixed="fixed"), raising=False)
    assert control() == "fixed"
    assert model_options(seed=1) == model_options(seed=2)
    assert model_options(do_sample=True, seed=1) != model_options(do_sample=True, seed=2)


def test_the_bound_is_a_setting():
    assert load_settings(comfyui_cache_bytes=0).comfyui_cache_bytes == 0
    with pytest.raises(ConfigError, match=r"comfyui_cache_bytes is -1\. .*0 to keep none"):
        load_settings(comfyui_cache_bytes=-1)


def test_images_are_known_by_shape_and_values(comfy):
    from sa2va_plugins.comfyui.tensors import Pictures

    plain = torch.rand(3, 4, 6, 3)
    whole = Pictures(plain)
    assert len(set(whole.digests())) == 3
    assert whole.digests() == tuple(whole.digest(index) for index in range(3))
    assert Pictures(plain.double().float().clone()).digests() == whole.digests()
    turned = Pictures(plain.transpose(1, 2).contiguous().reshape(3, 6, 4, 3))
    assert not set(turned.digests()) & set(whole.digests())
    assert Pictures(plain.reshape(3, 6, 4, 3)).digest(0) != whole.digest(0)
    strided = torch.rand(1, 8, 12, 3)
    assert Pictures(strided[:, ::2, ::2]).digest(0) == Pictures(strided[:, ::2, ::2].clone()).digest(0)
