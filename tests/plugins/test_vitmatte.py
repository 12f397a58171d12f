"""ViTMatte on a tiny model of random weights: it sees what the library would show it, and gives alpha."""

from pathlib import Path

import numpy as np
import pytest

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.plugins.manager import create_manager, find_mask_processors
from tests.vitmatte import write_checkpoint

torch = pytest.importorskip("torch")
vitmatte = __import__("plugins.vitmatte", fromlist=["matte"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of 76,000 parameters."""
    return write_checkpoint(tmp_path_factory.mktemp("vitmatte"))


@pytest.fixture
def processor():
    return find_mask_processors(create_manager([("vitmatte", vitmatte)], environment=ALONE))["vitmatte"]


ALONE = {"SA2VA_DISABLE_PLUGINS": "cli,vitmatte"}
"""The installed one is left out: the test brings the one of this folder."""


def scene(height=90, width=70):
    """A picture and the probability of a disc in it."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    return picture, (1 / (1 + np.exp(distance - 25))).astype(np.float32)


def options(processor, folder, **more):
    return {**processor.options, "model": str(folder), "erode": 2.0, "dilate": 2.0, **more}


def test_known_regions_stay_and_the_border_is_the_models(processor, folder):
    from plugins.vitmatte.matte import make_trimap

    picture, probability = scene()
    alpha = processor.make("cpu")(probability, picture, options(processor, folder))
    trimap = make_trimap(probability, 2, 2)
    assert alpha.dtype == np.float32
    assert alpha.shape == probability.shape
    assert set(np.unique(trimap)) == {0, 128, 255}
    np.testing.assert_array_equal(alpha[trimap == 255], 1)
    np.testing.assert_array_equal(alpha[trimap == 0], 0)
    assert 0 <= alpha.min() <= alpha.max() <= 1


def test_the_border_is_what_the_librarys_own_preprocessing_gives(processor, folder):
    from transformers import VitMatteForImageMatting
    from transformers.models.vitmatte.image_processing_pil_vitmatte import VitMatteImageProcessorPil

    from plugins.vitmatte.matte import make_trimap

    picture, probability = scene()
    chosen = options(processor, folder, black_point=0.0, white_point=1.0)
    alpha = processor.make("cpu")(probability, picture, chosen)
    trimap = make_trimap(probability, 2, 2)
    inputs = VitMatteImageProcessorPil().preprocess(picture, trimap, return_tensors="pt")
    model = VitMatteForImageMatting.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(**inputs).alphas[0, 0, : alpha.shape[0], : alpha.shape[1]].numpy()
    border = trimap == 128
    np.testing.assert_allclose(alpha[border], expected[border], atol=1e-6)


def test_black_and_white_point_stretch_the_border(processor, folder):
    picture, probability = scene()
    process = processor.make("cpu")
    plain = process(probability, picture, options(processor, folder, black_point=0.0, white_point=1.0))
    stretched = process(probability, picture, options(processor, folder, black_point=0.25, white_point=0.75))
    np.testing.assert_allclose(stretched, np.clip((plain - 0.25) / 0.5, 0, 1), atol=1e-6)


def test_a_large_picture_is_matted_at_the_size_that_was_granted(processor, folder):
    picture, probability = scene(400, 300)
    alpha = processor.make("cpu")(probability, picture, options(processor, folder, max_megapixels=0.01))
    assert alpha.shape == (400, 300)
    assert alpha[200, 150] == 1
    assert alpha[0, 0] == 0


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_empty_and_a_full_mask_stay_what_they_are(processor, folder, level):
    picture, _ = scene()
    probability = np.full(picture.shape[:2], level, np.float32)
    alpha = processor.make("cpu")(probability, picture, options(processor, folder))
    assert (alpha[20:-20, 20:-20] == level).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"erode": 0.0}, "erode"),
        ({"black_point": 0.9, "white_point": 0.5}, "white_point"),
        ({"max_megapixels": 0.0}, "max_megapixels"),
    ],
)
def test_impossible_options_are_named(processor, folder, wrong, words):
    picture, probability = scene()
    with pytest.raises(InvalidInput, match=words):
        processor.make("cpu")(probability, picture, options(processor, folder, **wrong))


def test_a_folder_without_the_model_is_named(processor, tmp_path):
    picture, probability = scene()
    with pytest.raises(ModelLoadFailed, match=str(tmp_path)):
        processor.make("cpu")(probability, picture, options(processor, tmp_path))
