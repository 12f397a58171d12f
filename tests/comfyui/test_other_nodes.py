"""The nodes beside segmentation: masks from tracks, refining edges, chat, options, unloading, the old names."""

import asyncio
from typing import Any

import numpy as np
import pytest

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.results import Segmentation
from tests.model_options import UNCHANGED

from .conftest import MODEL, execution_of

torch = pytest.importorskip("torch")

PLAIN = {
    "threshold": 0.5,
    "objects": "",
    "combine": "union",
    "grow": 0,
    "fill_holes": False,
    "smallest_area": 0,
    "invert": False,
}
EDGES = {
    "radius": 4,
    "erode": 6,
    "dilate": 6,
    "black_point": 0.15,
    "white_point": 0.99,
    "max_megapixels": 2.0,
}


@pytest.fixture
def tracks(comfy):
    """Two squares that overlap, in two frames of 40 x 60 pixels; the first has a hole and the second is soft."""
    from sa2va_plugins.comfyui.found_objects import FoundObjects

    logits = np.full((2, 2, 20, 20), -10, np.float32)
    logits[0, :, 2:14, 2:14] = 10
    logits[0, :, 6:9, 6:9] = -10
    logits[1, :, 10:18, 10:18] = 0.5
    answer = Segmentation("[SEG] and [SEG]", logits, (40, 60), 80, is_video=True)
    return FoundObjects(("left", "right"), ((0,), (1,)), answer)


def masks_of(tracks, **changed):
    from sa2va_plugins.comfyui.track_masks import Sa2VAMasksFromTracks

    return Sa2VAMasksFromTracks.execute(tracks, **{**PLAIN, **changed}).args


def test_the_threshold_counts_without_another_run(tracks):
    assert masks_of(tracks, objects="right")[0].any()
    assert not masks_of(tracks, objects="right", threshold=0.7)[0].any()


def test_objects_are_chosen_by_number_and_name(tracks):
    both, each, *_ = masks_of(tracks)
    left, right = each
    assert torch.equal(masks_of(tracks, objects="1")[0], left)
    assert torch.equal(masks_of(tracks, objects="right")[0], right)
    assert torch.equal(both, torch.maximum(left, right))
    assert torch.equal(masks_of(tracks, combine="intersection")[0], torch.minimum(left, right))
    assert torch.equal(masks_of(tracks, combine="difference")[0], left * (1 - right))
    with pytest.raises(InvalidInput, match="1 'left', 2 'right'"):
        masks_of(tracks, objects="middle")


def test_clean_up_changes_masks_as_it_says(tracks):
    plain = masks_of(tracks, objects="left")[0]
    filled = masks_of(tracks, objects="left", fill_holes=True)[0]
    assert filled.sum() > plain.sum()
    assert masks_of(tracks, objects="left", grow=3)[0].sum() > plain.sum()
    assert masks_of(tracks, objects="left", grow=-3)[0].sum() < plain.sum()
    assert not masks_of(tracks, objects="left", smallest_area=2400)[0].any()
    assert torch.equal(masks_of(tracks, objects="left", invert=True)[0], 1 - plain)


def test_soft_masks_are_the_probabilities(tracks):
    soft = masks_of(tracks)[2]
    expected = tracks.answer.probabilities().max(axis=0)
    assert np.array_equal(soft.numpy(), expected)


def test_all_masks_of_objects_come_as_one_batch_too(tracks):
    _, (left, right), _, batch = masks_of(tracks)
    assert torch.equal(batch, torch.stack([left[0], right[0], left[1], right[1]]))
    inverted = masks_of(tracks, objects="right", invert=True)
    assert torch.equal(inverted[3], inverted[1][0])


def test_the_preview_has_the_colours_of_the_objects_whichever_are_chosen(tracks):
    from sa2va_plugins.comfyui.colours import colour
    from sa2va_plugins.comfyui.track_masks import Sa2VAMasksFromTracks

    def shown(**changed):
        output = Sa2VAMasksFromTracks.execute(tracks, **{**PLAIN, **changed})
        return output.args[0][0].numpy().astype(bool), np.rint(output.ui.shown[0].numpy() * 255)

    def colours(picture, mask):
        return {tuple(map(int, each)) for each in picture[mask]}

    mask, picture = shown()
    assert colours(picture, mask) == {colour(0), colour(1)}
    assert colours(picture, ~mask) == {(0, 0, 0)}
    mask, picture = shown(objects="right")
    assert colours(picture, mask) == {colour(1)}
    mask, picture = shown(objects="right", invert=True)
    assert colours(picture, mask) == {(255, 255, 255)}
    mask, picture = shown(combine="difference")
    assert colours(picture, mask) == {colour(0)}


def test_outputs_that_nobody_uses_are_not_made(tracks, comfy):
    execution_of(comfy, connected=[0])
    masks, each, soft, _ = masks_of(tracks)
    assert masks.any()
    assert [mask.untyped_storage().nbytes() for mask in (*each, soft)] == [4, 4]
    assert soft.shape == masks.shape


def test_masks_that_nobody_uses_are_made_for_the_preview_alone(tracks, comfy):
    from sa2va_plugins.comfyui.refine_edges import GUIDED, Sa2VARefineEdges

    images = torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(0))

    def edges():
        return Sa2VARefineEdges.execute(images, GUIDED, **EDGES, tracks=tracks)

    execution_of(comfy, connected=[0])
    (made,) = edges().args
    execution_of(comfy, connected=[])
    (spared,), shown = edges().args, edges().ui.shown
    assert made.shape == spared.shape == (2, 40, 60)
    assert spared.untyped_storage().nbytes() == 4
    assert torch.allclose(shown, made, atol=1 / 255)
    assert masks_of(tracks)[0].untyped_storage().nbytes() == 4


@pytest.mark.parametrize("source", ["mask", "tracks"])
def test_the_guided_filter_makes_soft_edges(tracks, source):
    from sa2va_plugins.comfyui.refine_edges import GUIDED, Sa2VARefineEdges

    images = torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    given = {"tracks": tracks} if source == "tracks" else {"mask": masks_of(tracks)[0]}
    (refined,) = Sa2VARefineEdges.execute(images, GUIDED, **EDGES, **given).args
    assert refined.shape == (2, 40, 60)
    assert ((refined > 0.1) & (refined < 0.9)).any()


def test_vitmatte_runs_in_the_worker_once_for_each_picture(worker, comfy, image, monkeypatch):
    from sa2va_plugins.comfyui.refine_edges import vitmatte
    from sa2va_plugins.comfyui.tensors import Pictures

    monkeypatch.setenv("SA2VA_DISABLE_PLUGINS", "vitmatte")  # the scripted worker has one of any name
    maps = np.full((2, 48, 64), 0.25, np.float32)
    matte = vitmatte(Pictures(image), iter(maps), MODEL, {"erode": 6.0}, options())
    assert torch.equal(matte, torch.full((2, 48, 64), 0.75))
    assert comfy.bars[-1] == (2, 2)


def test_vitmatte_shares_the_worker_of_the_model_that_was_used_last(worker, image, monkeypatch):
    from sa2va_plugins.comfyui.refine_edges import VITMATTE, Sa2VARefineEdges
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    monkeypatch.setenv("SA2VA_DISABLE_PLUGINS", "vitmatte")
    found = Sa2VAImageSegmentation.execute(MODEL, image, "objects=1", 0.5).args[5]
    (refined,) = Sa2VARefineEdges.execute(image, VITMATTE, **EDGES, tracks=found).args
    assert refined.shape == (2, 48, 64)
    assert len(worker()) == 1


def test_masks_of_other_pictures_are_refused(tracks):
    from sa2va_plugins.comfyui.refine_edges import GUIDED, Sa2VARefineEdges

    with pytest.raises(InvalidInput, match="2 masks of 60 x 40 pixels for 1 pictures of 8 x 8"):
        Sa2VARefineEdges.execute(torch.zeros(1, 8, 8, 3), GUIDED, **EDGES, tracks=tracks)
    with pytest.raises(InvalidInput, match="Connect one of them"):
        Sa2VARefineEdges.execute(torch.zeros(1, 8, 8, 3), GUIDED, **EDGES)


def test_chat_is_about_all_pictures_or_none(worker, image):
    from sa2va_plugins.comfyui.chat import Sa2VAChat

    assert "hello [2] by" in Sa2VAChat.execute(MODEL, "hello", 5, image).args[0]
    assert "hello [0] by" in Sa2VAChat.execute(MODEL, "hello", 5).args[0]


def options(**changed):
    from sa2va_plugins.comfyui.model_options import Sa2VAModelOptions

    return Sa2VAModelOptions.execute(**UNCHANGED | changed).args[0]


def test_options_that_nobody_changed_leave_the_settings_alone(comfy, monkeypatch):
    from sa2va_plugins.comfyui.clients import client

    monkeypatch.setenv("SA2VA_KEEP_ALIVE", "77")
    monkeypatch.setenv("SA2VA_DTYPE", "float32")
    settings = client(MODEL, options()).settings
    assert (settings.keep_alive, settings.dtype, settings.quantization) == (77, "float32", "none")


def test_options_reach_the_worker_settings_and_the_answer(comfy):
    from sa2va_plugins.comfyui.clients import client

    chosen = options(
        quantization="8bit", keep_alive="minutes", minutes=2.0, device="cpu", do_sample=True, seed=7
    )
    settings = client(MODEL, chosen).settings
    assert (settings.keep_alive, settings.device, settings.quantization) == (120, "cpu", "8bit")
    assert (chosen.generation.do_sample, chosen.generation.seed) == (True, 7)
    assert options(keep_alive="unload now").keep_alive == 0
    assert options(keep_alive="for ever").keep_alive == -1


def test_every_setting_of_an_answer_can_be_set(comfy):
    import msgspec

    from sa2va_host.generation import Generation

    said: dict[str, Any] = {
        "max_new_tokens": 9,
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "seed": 7,
    }
    assert set(said) == {field.name for field in msgspec.structs.fields(Generation)}
    assert options(**said).generation == Generation(**said)
    assert options().generation == Generation()
    assert options(repetition_penalty=1.5).generation == Generation(repetition_penalty=1.5)


def test_a_workflow_is_trusted_only_where_the_user_s_own_file_says_so(comfy, tmp_path, monkeypatch):
    """Not where ComfyUI's settings do: whoever reaches its port can write those."""
    settings = tmp_path / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"Sa2VA.TrustWorkflows": true}')
    file = tmp_path / "own.toml"
    file.touch()
    monkeypatch.setenv("SA2VA_CONFIG", str(file))
    with pytest.raises(InvalidInput, match=f"write trust_workflows = true into {file}"):
        options(trust_remote_code=True)
    with pytest.raises(InvalidInput, match="fetch and run the kernel 'anybody/kernel'"):
        options(attention="anybody/kernel")
    with pytest.raises(InvalidInput, match="run the program '/anybody/python'"):
        options(worker_python="/anybody/python")
    file.write_text("trust_workflows = true")
    assert options(attention="anybody/kernel").attention == "anybody/kernel"
    chosen = options(trust_remote_code=True, revision=" main ")
    assert (chosen.trust_remote_code, chosen.revision) == (True, "main")
    assert options(worker_python="/my/python").worker_python == "/my/python"


@pytest.mark.parametrize("given", [{"quantization": "2bit"}, {"dtype": "int8"}, {"keep_alive": "always"}])
def test_what_comes_over_a_wire_is_checked_although_comfyui_does_not(comfy, given):
    with pytest.raises(InvalidInput, match="Use one of"):
        options(**given)


def test_an_interrupt_is_impatient_unless_the_settings_are_not(comfy, monkeypatch):
    from sa2va_plugins.comfyui.clients import INTERRUPT_GRACE, client

    assert client(MODEL, options()).settings.cancel_grace == INTERRUPT_GRACE
    monkeypatch.setenv("SA2VA_CANCEL_GRACE", "12")
    assert client(MODEL, options(device="cpu")).settings.cancel_grace == 12


def test_equal_options_share_one_client_and_few_stay_open(comfy):
    from sa2va_plugins.comfyui.clients import KEPT, _clients, client

    assert client(MODEL, options()) is client(MODEL, options())
    for minutes in range(1, KEPT + 3):
        client(MODEL, options(keep_alive="minutes", minutes=float(minutes)))
    assert len(_clients) == KEPT


def test_unload_passes_on_what_comes_and_returns_when_the_worker_is_gone(worker, image):
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation
    from sa2va_plugins.comfyui.unload import Sa2VAUnload

    Sa2VAImageSegmentation.execute(MODEL, image, "objects=1", 0.5)
    (running,) = worker()
    passed, report = Sa2VAUnload.execute(anything=image).args
    assert passed is image
    assert worker() == []
    assert f"the worker {running.pid} ended" in report
    assert Sa2VAUnload.execute().args[1].startswith("No worker is running")
    assert Sa2VAUnload.fingerprint_inputs() != Sa2VAUnload.fingerprint_inputs()


def test_a_worker_that_somebody_uses_stays_unless_forced(worker, image):
    from concurrent.futures import ThreadPoolExecutor

    from sa2va_host import Sa2VA
    from sa2va_host.errors import Cancelled
    from sa2va_plugins.comfyui.unload import unload

    with Sa2VA(MODEL) as other, ThreadPoolExecutor() as pool:
        other.load()
        call = pool.submit(other.segment, image[0].numpy(), "steps=400 pause=0.05")
        while not any(each.active for each in worker()):
            pass
        assert "stays" in unload(force=False, wait=0)
        assert "ended" in unload(force=True)
        with pytest.raises(Cancelled):
            call.result()


def test_the_old_names_have_the_old_inputs_in_their_order(comfy):
    from sa2va_plugins.comfyui.legacy import NODES

    schemas = {node.define_schema().node_id: node.define_schema() for node in NODES}
    first = [
        "model_name",
        "image",
        "segmentation_prompt",
        "threshold",
        "use_8bit",
        "use_flash_attn",
        "unload",
    ]
    morph = ["morph", "erode_kernel", "dilate_kernel", "iterations"]
    detail = [
        "process_detail",
        "detail_erode",
        "detail_dilate",
        "black_point",
        "white_point",
        "max_megapixels",
    ]
    ids = {name: [each.id for each in schema.inputs] for name, schema in schemas.items()}
    assert ids == {
        "XJSa2VAImageSegmentation": first + morph,
        "XJSa2VAVideoSegmentation": [first[0], "images", *first[2:], *morph],
        "XJSa2VAImageSegmentationV2": first + detail,
        "Sa2VANodeTpl": [
            "model_name",
            "image",
            "mask_threshold",
            "use_8bit_quantization",
            "use_flash_attn",
            "segmentation_prompt",
        ],
    }
    outputs = {name: [each.id for each in schema.outputs] for name, schema in schemas.items()}
    assert outputs.pop("Sa2VANodeTpl") == ["text_outputs", "masks", "mask_images"]
    assert set(map(tuple, outputs.values())) == {("text_output", "masks")}


def test_the_old_names_offer_what_fetches_their_checkpoints_and_never_as_the_default(comfy):
    from sa2va_plugins.comfyui.legacy import NODES

    for node in NODES:
        model = node.define_schema().inputs[0]
        assert model.options["default"] == "ByteDance/Sa2VA-Qwen3-VL-4B"
        assert model.options["default"] in model.options["options"]
        assert "ByteDance/Sa2VA-Qwen3-VL-4B (download, 20.2 GB)" in model.options["options"]
        assert node.validate_inputs("ByteDance/Sa2VA-Qwen3-VL-4B") is True  # as old workflows have it
        assert node.validate_inputs(None) is True, "a link, of which nothing is known yet"
        assert node.validate_inputs("") == "Choose a model."


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_the_template_node_gives_a_mask_for_each_object_whatever_its_threshold(worker, image, threshold):
    """Workflows hold 1.0 there and worked: that pack cuts its masks at 0.5 and never looks at it."""
    from sa2va_plugins.comfyui.legacy import Sa2VANodeTpl
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    prompt = "objects=2"
    expected = Sa2VAImageSegmentation.execute(MODEL, image[:1], prompt, 0.5).args[5]
    text, masks, images = Sa2VANodeTpl.execute(MODEL, image, threshold, False, True, prompt).args
    assert text == [expected.answer.text]
    assert masks.shape == (2, 48, 64)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(mask.numpy(), expected.mask(index, 0, 0.5).astype(np.float32))
    assert masks.any()
    assert images.shape == (2, 48, 64, 3)
    assert torch.equal(images, torch.stack([masks] * 3, dim=-1))
    assert len(worker()) == 1  # the model stays


def test_the_template_node_gives_an_empty_mask_where_nothing_is_found(worker, image):
    from sa2va_plugins.comfyui.legacy import Sa2VANodeTpl

    _, masks, images = Sa2VANodeTpl.execute(MODEL, image, 0.5, False, False, "objects=0").args
    assert (tuple(masks.shape), tuple(images.shape)) == ((1, 48, 64), (1, 48, 64, 3))
    assert not masks.any()


def test_newer_versions_of_comfyui_are_told_what_takes_the_place_of_the_old_nodes(comfy, monkeypatch):
    from comfy_api import latest

    from sa2va_plugins.comfyui import extension, legacy

    monkeypatch.setattr(latest, "replacements", [])
    pack = extension.Sa2VAExtension()
    asyncio.run(pack.on_load())
    told = {each.old_node_id: each for each in latest.replacements}
    old = {node.define_schema().node_id: node.define_schema() for node in legacy.NODES}
    new = {node.define_schema().node_id: node.define_schema() for node in extension.NODES}
    assert told.keys() == old.keys()
    for name, each in told.items():
        ids = [one.id for one in old[name].inputs]
        assert each.old_widget_ids == [one for one in ids if one not in ("image", "images")]
        target = new[each.new_node_id]
        assert {one["new_id"] for one in each.input_mapping} <= {one.id for one in target.inputs}
        assert {one["old_id"] for one in each.input_mapping if "old_id" in one} <= set(ids)
        for one in each.output_mapping:
            pair = old[name].outputs[one["old_idx"]], target.outputs[one["new_idx"]]
            assert "mask" in pair[1].id if "mask" in pair[0].id else pair[1].id == "text"


def test_a_comfyui_without_replacements_is_told_nothing(comfy, monkeypatch):
    from comfy_api import latest

    from sa2va_plugins.comfyui import replacements

    monkeypatch.setattr(latest, "replacements", [])
    monkeypatch.delattr(latest, "ComfyAPI")
    asyncio.run(replacements.register())
    monkeypatch.undo()
    monkeypatch.delattr(latest.io, "NodeReplace")
    asyncio.run(replacements.register())
    assert latest.replacements == []


def test_morphology_without_opencv_names_the_package(comfy, monkeypatch):
    from sa2va_host import extras
    from sa2va_plugins.comfyui.legacy import _morphed

    monkeypatch.setattr(extras, "_opencv_failure", str)
    masks = torch.zeros(1, 4, 4)
    assert _morphed(masks, "none", 3, 3, 1) is masks
    with pytest.raises(ConfigError, match=r"morph \(dilate\) needs the package OpenCV.*pip install"):
        _morphed(masks, "dilate", 3, 3, 1)


@pytest.mark.parametrize(("morph", "grows"), [("none", 0), ("dilate", 1), ("erode", -1)])
def test_the_old_nodes_segment_and_unload(worker, image, morph, grows):
    from sa2va_plugins.comfyui.legacy import XJSa2VAImageSegmentation
    from sa2va_plugins.comfyui.segment_image import Sa2VAImageSegmentation

    plain = Sa2VAImageSegmentation.execute(MODEL, image[:1], "objects=1", 0.5).args[1].sum()
    text, masks = XJSa2VAImageSegmentation.execute(
        MODEL, image, "objects=1", 0.5, False, False, True, morph=morph
    ).args
    assert text.startswith("objects=1")
    assert masks.shape == (1, 48, 64)
    assert np.sign(float(masks.sum() - plain)) == grows
    assert worker() == []


def test_the_old_video_node_follows(worker, image):
    from sa2va_plugins.comfyui.legacy import XJSa2VAVideoSegmentation

    _, masks = XJSa2VAVideoSegmentation.execute(MODEL, image, "objects=1", 0.7, False, False, False).args
    assert masks.shape == (2, 48, 64)
    assert masks.any()
