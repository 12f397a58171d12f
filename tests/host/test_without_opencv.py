"""Without OpenCV masks, images and boxes stay what they are, and what needs it says so in a sentence."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa2va_host import extras, png, resizing
from sa2va_host.errors import ConfigError
from sa2va_host.masks import guided_filter, masks, refine, regions
from sa2va_host.masks.refinement import Refinement
from sa2va_host.output.names import checked_kinds
from sa2va_host.video import shots
from tests.without_opencv import without_opencv

PARITY = Path(__file__).parents[1] / "parity"
FAMILIES = ("qwen3", "qwen25", "internvl", "internlm2")
IS_INTELS = cv2.__version__ >= "5" and cv2.ipp.useIPP() and "*AVX2" in cv2.getCPUFeaturesLine()
"""Whether this OpenCV resizes as its wheels for x86 do; others differ in the last digits."""


@pytest.fixture
def absent(monkeypatch):
    """As it is in a process where `cv2` is not found."""
    for module in (extras, masks, png, resizing):
        monkeypatch.setattr(module, "has_opencv", lambda: False, raising=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "cv2" else find_spec(name))
    extras._opencv_failure.cache_clear()
    yield
    extras._opencv_failure.cache_clear()


def resized(values, size):
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).reshape(size)


side = st.integers(2, 200)


@given(st.tuples(side, side), st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(0, 99))
def test_resized_logits_have_opencvs_bits(source, size, seed):
    logits = np.random.default_rng(seed).normal(0, 10, source).astype(np.float32)
    ours, wanted = resizing._bilinear(logits, size), resized(logits, size)
    assert ours.dtype == np.float32
    if IS_INTELS:
        assert np.array_equal(ours, wanted)
    else:
        assert np.abs(ours - wanted).max() < 0.01


@pytest.mark.parametrize("source", [(1, 1), (1, 7), (7, 1), (1, 300)])
def test_a_line_of_logits_is_resized_to_the_last_digits(source):
    logits = np.random.default_rng(3).normal(0, 10, source).astype(np.float32)
    assert np.abs(resizing._bilinear(logits, (40, 333)) - resized(logits, (40, 333))).max() < 0.01


@pytest.mark.parametrize("size", [(1080, 1920), (2160, 3840), (333, 517), (1024, 1024), (97, 1)])
def test_a_mask_of_true_size_has_opencvs_bits(size):
    bumps: Any = cv2.GaussianBlur(
        np.random.default_rng(5).normal(0, 1, (256, 256)).astype(np.float32), (0, 0), 4
    )
    square = resized(bumps * 100, (1024, 1024))
    ours = resizing._bilinear(resizing._bilinear(bumps * 100, (1024, 1024)), size)
    if IS_INTELS:
        assert np.array_equal(ours, resized(square, size))
    assert ((ours > 0) != (resized(square, size) > 0)).mean() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_upstreams_golden_masks(family, absent):
    """The same bits as with OpenCV, whose masks have one pixel in all that upstream's have not."""
    differing = drawn = 0
    with np.load(PARITY / family / "golden.npz") as golden:
        for case, number in product(("image", "video"), (0, 1)):
            logits = golden[f"{case}.low_res_logits.{number}"]
            shape = tuple(golden[f"{case}.mask_shape.{number}"])
            wanted = np.unpackbits(golden[f"{case}.mask.{number}"])[: np.prod(shape)].reshape(shape)
            square = logits.shape[-1] * 4
            for low, upstream in zip(logits, wanted.astype(bool), strict=True):
                ours = masks.resize(low, square, shape[1:])
                if IS_INTELS:
                    assert np.array_equal(ours, resized(resized(low, (square, square)), shape[1:]))
                mask = masks.binarise(low[None, None], square, shape[1:])[0, 0]
                assert (mask != upstream).sum() <= 1
                differing += (mask != upstream).sum()
                drawn += mask.sum()
    assert differing <= 1
    assert drawn > 1000


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("factor", [1.0, 1.3, 2, 3, 7.7])
def test_shrunk_images_differ_by_one_at_most(kind, factor):
    generator = np.random.default_rng(7)
    size = (40, 31)
    source = (round(size[0] * factor), round(size[1] * factor), 3)
    values = generator.random(source).astype(np.float32)
    image = values if kind == "float32" else (values * np.iinfo(kind).max).astype(kind)
    wanted = resizing.shrink(image, size)
    ours = resizing._mean(image, size)
    assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype)
    difference = np.abs(ours.astype(np.float64) - wanted)
    assert difference.max() <= (1e-6 if kind == "float32" else 1)
    assert (difference > 1e-6).mean() < 0.01


@pytest.mark.parametrize("size", [(30, 40), (17, 33), (1, 5), (60, 81)])
def test_marks_are_those_of_the_nearest_pixel(size):
    marks = np.random.default_rng(8).integers(0, 3, (60, 81)).astype(np.uint8)
    wanted = cv2.resize(marks, size[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(resizing.nearest(marks, size), wanted)


@pytest.mark.parametrize("side", [1, 2, 6, 9])
def test_a_trimap_is_the_same(side, monkeypatch):
    matte = pytest.importorskip("sa2va_plugins.vitmatte.matte")
    probability = np.zeros((150, 190), np.float32)
    probability[30:120, :150] = 1
    probability[60:70, 60:70] = 0
    wanted = matte.make_trimap(probability, side, side + 1)
    monkeypatch.setattr(matte, "has_opencv", lambda: False)
    assert np.array_equal(matte.make_trimap(probability, side, side + 1), wanted)
    square = np.ones((side, side), np.uint8)
    inside = cv2.erode((probability > 0.5).astype(np.uint8), square, iterations=5) == 1
    assert np.array_equal(wanted == 255, inside)


def test_an_infinite_pixel_stays_where_it_is():
    light = np.ones((8, 8), np.float32)
    light[0, 0] = np.inf
    small = resizing._mean(light, (3, 3))
    assert np.isinf(small[0, 0])
    assert np.all(small.ravel()[1:] == 1)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((9, 7), "uint8"), ((9, 7, 3), "uint8"), ((9, 7, 4), "uint8"), ((9, 7), "uint16"), ((9, 7), ">u2")],
)
def test_a_png_has_the_same_pixels(shape, kind, absent):
    top = np.iinfo(kind).max
    pixels = np.random.default_rng(1).integers(0, top, shape, endpoint=True).astype(kind)
    encoded = png.encode(pixels, profile=b"a profile")
    read: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if len(shape) == 3:
        read = read[:, :, [2, 1, 0, 3][: shape[2]]]
    assert np.array_equal(read, pixels)
    assert Image.open(io.BytesIO(encoded)).info["icc_profile"] == b"a profile"


def test_a_mask_as_png(absent):
    mask = np.random.default_rng(2).random((50, 33)) > 0.5
    read: Any = cv2.imdecode(np.frombuffer(png.encode_mask(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint8
    assert np.array_equal(read, mask * np.uint8(255))


def test_an_overlay_differs_at_outlines_alone(monkeypatch):
    generator = np.random.default_rng(4)
    image: Any = cv2.GaussianBlur(generator.integers(0, 256, (240, 330, 3)).astype(np.uint8), (0, 0), 1)
    found = np.zeros((3, 240, 330), np.bool_)
    found[0, 50:150, 60:200] = True
    found[0, 80:100, 80:100] = False
    found[1] = np.hypot(*np.ogrid[-170:70, -330:0]) < 60  # reaches two borders of the image
    wanted = masks.overlay(image, found)
    monkeypatch.setattr(masks, "has_opencv", lambda: False)
    drawn = masks.overlay(image, found)
    edges = np.zeros((240, 330), np.bool_)
    for mask in found:
        edges |= cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7))) > 0
    edges[[*range(4), *range(-4, 0)]] = True
    edges[:, [*range(4), *range(-4, 0)]] = True
    assert np.array_equal(drawn[~edges], wanted[~edges])
    for mask, colour in zip(found, masks.PALETTE, strict=False):
        contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
        for x, y in (point for contour in contours for point in contour[:, 0]):
            if not found[1, y - 2 : y + 3, x - 2 : x + 3].any() or mask is found[1]:
                assert tuple(drawn[y, x]) == colour


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: Refinement(grow=3).check_packages(), "growing or shrinking"),
        (
            lambda: Refinement(fill_holes=True, smallest_area=9).check_packages(),
            "filling holes, a smallest area",
        ),
        (lambda: refine.refine(np.zeros((4, 4), np.float32), Refinement(smooth=1.0), 0.5), "smoothing"),
        (lambda: regions.polygons(np.ones((4, 4), bool)), "polygons"),
        (lambda: checked_kinds(["polygons"]), "polygons"),
        (lambda: shots.split(iter(()), "cuts"), "cuts"),
        (lambda: png.encode(np.zeros((4, 4, 3), np.uint16)), "16 bits"),
        (
            lambda: guided_filter.guided_filter(
                np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), 1, 1e-4
            ),
            "guided filter",
        ),
    ],
)
def test_what_needs_opencv_names_the_package_and_the_command(call, what, absent):
    with pytest.raises(
        ConfigError, match=f"(?i){what}.*needs the package OpenCV, which is not installed"
    ) as caught:
        call()
    assert caught.value.advice == f"Run: {sys.executable} -m pip install 'opencv-python-headless>=4.8'"


def test_what_does_not_need_it_refines_without(absent):
    probability = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    Refinement(invert=True, smallest_area=1).check_packages()
    assert np.array_equal(refine.refine(probability, Refinement(invert=True), 0.5), 1 - probability)
    assert refine.refine(probability, Refinement(), 0.5) is probability
    assert shots.split(iter(()), "every:10") is not None


def test_the_command_leaves_an_older_numpy(absent, monkeypatch, tmp_path):
    info = tmp_path / "numpy-1.26.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        extras.check_opencv("This")
    assert caught.value.advice.endswith("'opencv-python-headless>=4.8' numpy==1.26.4")


BROKEN = {
    "raise ImportError('DLL load failed while importing cv2: not found.')": (
        "DLL load failed while importing cv2: not found.",
        "opencv-contrib-python==4.10.0.84",
    ),
    "raise ImportError('libGL.so.1: cannot open shared object file')": (
        "libGL.so.1: cannot open shared object file.",
        "package manager",
    ),
    "": ("module 'cv2' has no attribute 'resize'.", "opencv-contrib-python==4.10.0.84"),
}


@pytest.mark.parametrize("content", BROKEN)
def test_one_that_is_broken_is_not_replaced_by_another(content, tmp_path):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(content)
    info = tmp_path / "opencv_contrib_python-4.10.0.84.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-contrib-python\nVersion: 4.10.0.84\n")
    code = (
        "import logging; logging.basicConfig(level='INFO')\n"
        "from sa2va_host import extras\n"
        "from sa2va_host.errors import ConfigError\n"
        "print(extras.has_opencv(), extras.has_opencv())\n"
        "try: extras.check_opencv('Growing')\n"
        "except ConfigError as error: print(error.advice); print(error)"
    )
    root = Path(extras.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],  # without this environment's own OpenCV
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    answers, advice, *message = done.stdout.splitlines()
    reason, wanted = BROKEN[content]
    assert answers == "False False"
    assert wanted in advice
    assert "headless" not in done.stdout
    assert "Growing needs the package OpenCV, and opencv-contrib-python is here" in message[0]
    assert reason in message[0]
    assert done.stderr.count("NumPy and Pillow") == 1


SEGMENT = """
import hashlib, json, logging, sys
logging.basicConfig(level="INFO")
import numpy as np
from sa2va_host import Sa2VA
from sa2va_host.output.saving import save
with Sa2VA("sa2va-tiny") as sa:
    result = sa.segment(sys.argv[1], "the red square and the blue triangle")
saved = save(result, sys.argv[1], sys.argv[2] + "/out", ("masks", "overlay", "cutout", "probability", "rle"))
digest = hashlib.sha256(np.ascontiguousarray(result.probabilities()))
print(json.dumps([digest.hexdigest(), [item.box for item in saved.objects], "cv2" in sys.modules]))
"""


@pytest.mark.slow
def test_a_real_answer_gives_the_same_files(tmp_path):
    """The bundled model, and a host that finds no OpenCV."""
    pytest.importorskip("transformers")
    image = Path(__file__).parents[2] / "plugins" / "cli" / "examples" / "triangles.jpg"
    found = {}
    for name, more in (("with", {}), ("without", without_opencv(tmp_path / "site"))):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", SEGMENT, str(image), str(tmp_path / name)],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("NumPy and Pillow") == (name == "without")
        found[name] = json.loads(done.stdout)
    assert (found["with"].pop(), found["without"].pop()) == (True, False)
    if IS_INTELS:
        assert found["with"] == found["without"]
    names = sorted(path.name for path in (tmp_path / "with").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "without").iterdir())
    assert len(names) == 2 * 3 + 2
    for name in names:
        one, other = tmp_path / "with" / name, tmp_path / "without" / name
        if name.endswith(".json"):
            assert one.read_text() == other.read_text().replace("/without/", "/with/")
        elif "overlay" in name:
            assert (np.asarray(Image.open(one)) != np.asarray(Image.open(other))).any(axis=2).mean() < 0.05
        else:
            assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other))), name


def test_while_another_thread_imports_opencv_it_is_there(monkeypatch):
    """OpenCV puts its own module, which has no spec, in place of the package that is being imported."""
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    assert sys.modules["cv2"].__spec__ is None
    assert extras.opencv_is_installed()


def test_a_shortage_of_descriptors_is_not_taken_for_an_opencv_that_is_broken(monkeypatch):
    shortage = OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def refuse(name):
        raise shortage

    extras._opencv_failure.cache_clear()
    try:
        with monkeypatch.context() as famine:
            famine.setattr(extras, "import_module", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                extras.has_opencv()
        assert extras.has_opencv()
    finally:
        extras._opencv_failure.cache_clear()
