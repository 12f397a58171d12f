"""What is saved can be read back, is named after its input, and says what it is."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.masks import masks, regions
from sa2va_host.masks.refine import combine, refine
from sa2va_host.masks.refinement import Refinement
from sa2va_host.output.names import KINDS, checked_kinds, distinct_stems
from sa2va_host.output.saving import save
from sa2va_host.results import Segmentation

SIZE = (48, 72)
WITHOUT_EXR = [kind for kind in KINDS if not kind.startswith("exr")]


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def result():
    generator = np.random.default_rng(1)
    logits = np.stack([[generator.standard_normal((32, 32)) * 4] for _ in range(2)])
    return Segmentation(text="It is [SEG], 圆.", logits=logits.astype(np.float32), size=SIZE, image_size=128)


def empty(count=0):
    logits = np.full((count, 1, 32, 32), -20, dtype=np.float32)
    return Segmentation(text="Nothing.", logits=logits, size=SIZE, image_size=128)


def read(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def test_names_are_the_stem_with_number_and_kind(tmp_path, result, picture):
    saved = save(result, picture, tmp_path / "new" / "photo.v2", WITHOUT_EXR)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "photo.v2.0.cutout.png",
        "photo.v2.0.png",
        "photo.v2.0.probability.png",
        "photo.v2.1.cutout.png",
        "photo.v2.1.png",
        "photo.v2.1.probability.png",
        "photo.v2.logits.npz",
        "photo.v2.overlay.png",
        "photo.v2.polygons.json",
        "photo.v2.rle.json",
    ]
    assert list(saved.files) == WITHOUT_EXR
    assert [path.name for path in saved.files["cutout"]] == ["photo.v2.0.cutout.png", "photo.v2.1.cutout.png"]
    written = {path for paths in saved.files.values() for path in paths}
    assert written == set((tmp_path / "new").iterdir())


def test_only_what_was_asked_for_is_written(tmp_path, result, picture):
    saved = save(result, picture, tmp_path / "x", ["overlay"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.overlay.png"]
    assert [item.mask for item in saved.objects] == [None, None]
    assert save(result, picture, tmp_path / "y", []).objects == saved.objects


def test_the_picture_may_be_a_file(tmp_path, result, picture):
    Image.fromarray(picture).save(tmp_path / "photo.png")
    save(result, tmp_path / "photo.png", tmp_path / "photo", ["cutout"])
    save(result, picture, tmp_path / "array", ["cutout"])
    assert (tmp_path / "photo.1.cutout.png").read_bytes() == (tmp_path / "array.1.cutout.png").read_bytes()


def test_objects_are_described(tmp_path, result, picture):
    saved = save(result, picture, tmp_path / "x", ["masks"], threshold=0.3)
    for index, (mask, probability) in enumerate(zip(result.masks(0.3), result.probabilities(), strict=True)):
        found = saved.objects[index]
        assert (found.index, found.mask) == (index, str(tmp_path / f"x.{index}.png"))
        assert (found.area, found.box) == (mask.sum(), masks.box(mask))
        assert found.mean_probability == pytest.approx(probability[mask].mean(), abs=1e-4)
        assert read(saved.files["masks"][index])[0] == "L"
        assert np.array_equal(read(saved.files["masks"][index])[1], mask * 255)


def test_cutouts_have_soft_alpha_and_hide_the_rest(tmp_path, result, picture):
    (path, _) = save(result, picture, tmp_path / "x", ["cutout"]).files["cutout"]
    mode, rgba = read(path)
    assert mode == "RGBA"
    alpha = rgba[:, :, 3]
    assert np.abs(alpha / 255 - result.probabilities()[0]).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(rgba[alpha > 0][:, :3], picture[alpha > 0])
    assert (alpha == 0).any()
    assert not rgba[alpha == 0].any()


def test_probabilities_have_sixteen_bits(tmp_path, result, picture):
    (path, _) = save(result, picture, tmp_path / "x", ["probability"]).files["probability"]
    mode, values = read(path)
    assert mode.startswith("I;16")
    assert np.abs(values / 65535 - result.probabilities()[0]).max() <= 0.5 / 65535 + 1e-7


def test_exr_is_the_probability_itself(tmp_path, result, picture):
    exr = pytest.importorskip("OpenEXR", reason="an optional extra")
    paths = save(result, picture, tmp_path / "x", ["exr"]).files["exr"]
    assert [path.name for path in paths] == ["x.0.probability.exr", "x.1.probability.exr"]
    for path, probability in zip(paths, result.probabilities(), strict=True):
        channels = exr.File(str(path)).channels()
        assert list(channels) == ["Y"]
        assert channels["Y"].pixels.dtype == np.float16
        assert np.array_equal(channels["Y"].pixels, probability.astype(np.float16))
    paths = save(result, picture, tmp_path / "x", ["exr"], exr_depth="float").files["exr"]
    for path, probability in zip(paths, result.probabilities(), strict=True):
        assert np.array_equal(exr.File(str(path)).channels()["Y"].pixels, probability)


def test_without_the_library_exr_says_what_to_install(monkeypatch, tmp_path, result, picture):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(ConfigError, match=r"pip install 'OpenEXR>="):
        save(result, picture, tmp_path / "x", ["masks", "exr"])
    assert not list(tmp_path.iterdir())


def test_regions_are_documents(tmp_path, result, picture):
    saved = save(result, picture, tmp_path / "x", ["rle", "polygons"], prompt="圆", threshold=0.6)
    for kind in ("rle", "polygons"):
        (path,) = saved.files[kind]
        document = json.loads(path.read_text(encoding="utf-8"))
        assert (document["prompt"], document["text"]) == ("圆", result.text)
        assert document["size"] == list(SIZE)
        for item, found, mask in zip(document["objects"], saved.objects, result.masks(0.6), strict=True):
            assert (item["index"], item["area"], tuple(item["box"])) == (found.index, found.area, found.box)
            if kind == "rle":
                assert np.array_equal(regions.decode(item["rle"]), mask)
            else:
                assert item["polygons"] == regions.polygons(mask)


def test_polygons_are_simplified_by_as_much_as_is_asked(tmp_path, result, picture):
    (path,) = save(result, picture, tmp_path / "x", ["polygons"], polygon_tolerance=1.5).files["polygons"]
    for item, mask in zip(json.loads(path.read_text())["objects"], result.masks(), strict=True):
        assert item["polygons"] == regions.polygons(mask, 1.5) != regions.polygons(mask)
    with pytest.raises(InvalidInput, match="tolerance is -1"):
        save(result, picture, tmp_path / "y", ["masks"], polygon_tolerance=-1)
    assert not list(tmp_path.glob("y*"))


def test_the_files_of_object_0_come_after_those_of_others_and_the_overlay_last(tmp_path, result, picture):
    """So that whoever finds them finds a whole set, also where the run was ended in the middle."""
    (tmp_path / "x.1.png").mkdir()
    with pytest.raises(OSError, match=r"x\.1\.png"):
        save(result, picture, tmp_path / "x", ["masks", "overlay"])
    (tmp_path / "y.0.png").mkdir()
    with pytest.raises(OSError, match=r"y\.0\.png"):
        save(result, picture, tmp_path / "y", ["masks", "overlay"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["y.1.png"]


def test_logits_make_the_same_masks_again(tmp_path, result, picture):
    (path,) = save(result, picture, tmp_path / "x", ["logits"], prompt="the circle").files["logits"]
    with np.load(path, allow_pickle=False) as stored:
        again = Segmentation(
            text=str(stored["text"]),
            logits=stored["logits"],
            size=tuple(stored["size"].tolist()),
            image_size=int(stored["image_size"]),
        )
        assert str(stored["prompt"]) == "the circle"
    assert again.text == result.text
    assert np.array_equal(again.masks(), result.masks())


def test_everything_is_of_the_refined_probability(tmp_path, result, picture):
    refinement = Refinement(largest_only=True, guide_radius=3, grow=2, invert=True)
    kinds = ["masks", "probability", "rle"]
    saved = save(result, picture, tmp_path / "x", kinds, threshold=0.4, refinement=refinement)
    expected = result.masks(0.4, refinement, guide=picture)
    refined = result.probabilities(refinement, 0.4, guide=picture)
    document = json.loads(saved.files["rle"][0].read_text())
    for index, mask in enumerate(expected):
        assert np.array_equal(read(saved.files["masks"][index])[1] > 0, mask)
        assert np.array_equal(regions.decode(document["objects"][index]["rle"]), mask)
        assert np.abs(read(saved.files["probability"][index])[1] / 65535 - refined[index]).max() < 1e-5
        assert saved.objects[index].area == mask.sum()
        assert saved.objects[index].mean_probability == pytest.approx(refined[index][mask].mean(), abs=1e-4)


def test_processed_probabilities_stand_for_the_results_own(tmp_path, result, picture):
    processed = np.zeros((2, *SIZE))
    processed[0, 5:9, 10:20] = 0.75
    saved = save(
        result, picture, tmp_path / "x", ["masks"], probabilities=processed, refinement=Refinement(grow=1)
    )
    expected = refine(processed[0].astype(np.float32), Refinement(grow=1), 0.5) > 0.5
    assert np.array_equal(read(saved.files["masks"][0])[1] > 0, expected)
    assert saved.objects[1].box is None
    with pytest.raises(InvalidInput, match=r"\[objects, 48, 72\] is needed"):
        save(result, picture, tmp_path / "y", probabilities=processed[:, 1:])


def test_combined_objects_are_saved_as_one(tmp_path, result, picture):
    union = combine(result.probabilities(), "union")
    saved = save(result, picture, tmp_path / "x", ["masks"], probabilities=union[None])
    assert [path.name for path in tmp_path.iterdir()] == ["x.0.png"]
    assert saved.objects[0].area == result.masks().any(axis=0).sum()


def test_an_answer_without_objects_and_an_empty_mask(tmp_path, picture):
    saved = save(empty(), picture, tmp_path / "x", WITHOUT_EXR)
    assert saved.objects == ()
    for kind in ("masks", "cutout", "probability"):
        (path,) = saved.files[kind]
        assert not read(path)[1].any()
        assert read(path)[1].shape[:2] == SIZE
    assert saved.files["masks"] == (tmp_path / "x.0.png",)
    assert save(empty(), picture, tmp_path / "z", ["masks"], skip_empty=True).files["masks"] == ()
    assert not (tmp_path / "z.0.png").exists()
    assert np.array_equal(read(tmp_path / "x.overlay.png")[1], picture)
    assert json.loads((tmp_path / "x.rle.json").read_text())["objects"] == []
    (found,) = save(empty(1), picture, tmp_path / "y", WITHOUT_EXR).objects
    assert (found.area, found.box, found.mean_probability) == (0, None, 0.0)
    assert not read(tmp_path / "y.0.png")[1].any()


def test_a_wrong_request_writes_nothing(tmp_path, result, picture):
    with pytest.raises(InvalidInput, match=r"kind 'mask'\. Use masks, overlay, "):
        save(result, picture, tmp_path / "x", ["mask"])
    with pytest.raises(InvalidInput, match="72 x 40 pixels, but the masks belong to one of 72 x 48"):
        save(result, picture[:40], tmp_path / "x")
    for objects in (0, 1):
        with pytest.raises(InvalidInput, match="0 to 1"):
            save(empty(objects), picture, tmp_path / "x", threshold=2)
    video = Segmentation(text="", logits=result.logits, size=SIZE, image_size=128, is_video=True)
    with pytest.raises(TypeError, match="each frame"):
        save(video, picture, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_kinds_are_put_in_order_once():
    assert checked_kinds(["overlay", " masks", "overlay"]) == ("masks", "overlay")
    assert checked_kinds(["logits"]) == ("logits",)
    assert checked_kinds([]) == ()
    assert checked_kinds(["matte", "probability"]) == ("probability",)
    with pytest.raises(InvalidInput, match="kind ''"):
        checked_kinds([""])


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["a/x.png", "b/y.jpg"], ["x", "y"]),
        (["a/x.png", "b/x.jpg", "x.tif"], ["x", "x-2", "x-3"]),
        (["a/x.png", "b/x.jpg", "x-2.png"], ["x", "x-3", "x-2"]),
        (["x-2.png", "x.png", "x.jpg", "X.gif"], ["x-2", "x", "x-3", "X-4"]),
        (["same.png", "same.png"], ["same", "same-2"]),
        (["photo.v2.png", "photo.v2.jpg"], ["photo.v2", "photo.v2-2"]),
        ([], []),
    ],
)
def test_two_inputs_never_share_a_stem(paths, stems):
    assert distinct_stems(paths) == stems
