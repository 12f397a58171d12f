"""Which frames condition the tracker, and on what: evenly spread key frames, and masks in the place of vectors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.limits import ConditionOn
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.models.names import DECODER, FINE_TUNED_DECODER, SAM2_PREFIX, decoder_name
from sa2va_worker.models.pictures import square
from sa2va_worker.models.sam2 import Features, Sam2
from sa2va_worker.models.tracker import Tracker
from sa2va_worker.steps import Masks, Progress, SegmentRequest
from tests.worker.conftest import Frames, Heard, load_engine
from training.heldout import draw_clip

PROMPT = "everything"


@pytest.fixture(scope="module")
def tiny() -> Sa2VAEngine:
    return load_engine(BUNDLED / "sa2va-tiny")


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """uint8 `[24, height, width, 3]`"""
    return draw_clip(np.random.default_rng(4), (120, 160), 24).frames


def follow(
    engine: Sa2VAEngine,
    frames: Sequence[NDArray[np.uint8]],
    positions: Sequence[int],
    condition_on: ConditionOn = "vectors",
) -> Heard:
    """What a call says whose key frames are at these places."""
    request = SegmentRequest(
        [PROMPT], [frames[at] for at in positions], True, key_positions=positions, condition_on=condition_on
    )
    return Heard(list(engine.segment(request, Frames(frames, engine.info.image_size))))


def test_the_first_frames_are_the_same_by_number_and_by_place(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8]
) -> None:
    named = follow(tiny, list(frames[:8]), [0, 1, 2])
    request = SegmentRequest([PROMPT], list(frames[:3]), True)
    counted = Heard(list(tiny.segment(request, Frames(frames[:8], tiny.info.image_size))))
    np.testing.assert_array_equal(named.logits, counted.logits)


def test_spread_key_frames_are_encoded_once_and_answered_in_their_place(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8]
) -> None:
    sam2 = tiny._model.sa2va.sam2
    before = sam2.encoder_calls
    heard = follow(tiny, list(frames), [0, 11, 23])
    assert sam2.encoder_calls - before == len(frames)
    assert [step.frame for step in heard.steps if isinstance(step, Masks)] == list(range(len(frames)))
    # Between two masks at most one frame is encoded, so that other calls get their turn.
    first = next(place for place, step in enumerate(heard.steps) if isinstance(step, Masks))
    ahead = [step for step in heard.steps[:first] if isinstance(step, Progress) and step.phase == "tracking"]
    assert len(ahead) == 2


def test_a_key_frame_is_decoded_from_the_vector_alone_wherever_it_is(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8]
) -> None:
    model = tiny._model.sa2va
    prompts = torch.randn(2, model.sam2.width, generator=torch.Generator().manual_seed(0))
    seen = [encoded(model.sam2, frame).expand(2) for frame in frames[:4]]
    with torch.inference_mode():
        spread, alone = Tracker(model.sam2, prompts), Tracker(model.sam2, prompts)
        spread.step(seen[0], True, 0)
        later = spread.step(seen[3], True, 3)
        assert torch.equal(later.logits, alone.step(seen[3], True).logits)
        tracked = spread.step(seen[1], False, 1)
        only_first = Tracker(model.sam2, prompts)
        only_first.step(seen[0], True)
        assert not torch.equal(tracked.logits, only_first.step(seen[1], False).logits)


def test_memory_reaches_back_by_frames_and_key_frames_leave_gaps(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against SAM2's own rule, written out over everything that was ever seen."""
    sam2, keys = tiny._model.sa2va.sam2, {0, 4, 9, 23}
    recalled: list[tuple[list[int], int]] = []
    recall = Sam2.recall

    def listen(
        self: Sam2, features: Features, memories: Sequence[tuple[int, object]], pointers: Sequence[object]
    ):
        recalled.append((sorted(distance for distance, _ in memories), len(pointers)))
        return recall(self, features, memories, pointers)  # type: ignore[arg-type]

    monkeypatch.setattr(Sam2, "recall", listen)
    tracker = Tracker(sam2, torch.zeros(1, sam2.width))
    seen = encoded(sam2, frames[0])
    with torch.inference_mode():
        for frame in sorted(keys):
            tracker.step(seen, True, frame)
        for frame in sorted(set(range(23)) - keys):
            tracker.step(seen, False, frame)
            past = [back for back in range(1, 16) if frame - back >= 0 and frame - back not in keys]
            memories = [0] * len(keys) + [back for back in past if back <= 6]
            pointers = len(past) + sum(key <= frame for key in keys)
            assert recalled[-1] == (memories, pointers), frame


def test_a_mask_is_taken_as_sam2_takes_a_mask_prompt(tiny: Sa2VAEngine, frames: NDArray[np.uint8]) -> None:
    sam2 = tiny._model.sa2va.sam2
    features, side = encoded(sam2, frames[0]).expand(2), sam2.image_size
    masks = torch.zeros(2, 1, side, side)
    masks[0, 0, :, side // 8 : side // 2] = 1  # without corners, which coarse logits would round
    logits = masks[:, 0, 1::4, 1::4] * 20 - 10
    with torch.inference_mode():
        certain, pointers = sam2.seed(features, logits, (side, side))
        for number in range(2):
            one = features[number]
            skips, mask = [one.stride4, one.stride8], masks[number, None]
            theirs: Any = sam2.model._use_mask_as_output(one.top, skips, mask)
            np.testing.assert_allclose(certain[number], theirs.pred_masks[0, 0], atol=1e-4)
        # SAM2's own code takes the pointer from the single-mask token here; transformers' takes another.
        embeddings: Any = [features.stride4[:1], features.stride8[:1], features.top[:1]]
        pointed: Any = sam2.model._single_frame_forward(
            input_masks=sam2.model.mask_downsample(masks[:1]),
            image_embeddings=embeddings,
            multimask_output=False,
        )
    np.testing.assert_allclose(pointers[0], pointed.object_pointer.flatten(), atol=1e-4)
    assert torch.equal(pointers[1:], sam2.model.no_object_pointer.expand(1, -1))


def test_masks_are_propagated_by_the_original_decoder(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    engine = load_engine(with_two_decoders(tmp_path))
    by_vectors, by_masks = (follow(engine, list(frames[:6]), [0, 3], way) for way in ("vectors", "masks"))
    np.testing.assert_array_equal(by_masks.logits[:, [0, 3]], by_vectors.logits[:, [0, 3]])
    assert by_masks.answer.notes == []
    original = engine._model.sa2va.sam2.original_decoder
    assert original is not None
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.zero_()
    without = follow(engine, list(frames[:6]), [0, 3], "masks")
    np.testing.assert_array_equal(without.logits[:, [0, 3]], by_masks.logits[:, [0, 3]])
    assert not without.logits[:, [1, 2, 4, 5]].any()
    np.testing.assert_array_equal(follow(engine, list(frames[:6]), [0, 3]).logits, by_vectors.logits)


def test_a_checkpoint_with_one_decoder_says_that_it_did_both(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8]
) -> None:
    by_vectors, by_masks = (follow(tiny, list(frames[:6]), [0, 3], way) for way in ("vectors", "masks"))
    assert by_vectors.answer.notes == []
    (note,) = by_masks.answer.notes
    assert "fine-tuned mask decoder" in note
    np.testing.assert_array_equal(by_masks.logits[:, [0, 3]], by_vectors.logits[:, [0, 3]])
    assert not np.array_equal(by_masks.logits, by_vectors.logits)


@pytest.mark.parametrize("form", ["transformers", "sam2", "sa2va-i"])
def test_the_original_decoder_of_another_checkpoint_propagates(
    tiny: Sa2VAEngine, frames: NDArray[np.uint8], tmp_path: Path, form: str
) -> None:
    original = original_decoder()
    both = load_engine(with_two_decoders(tmp_path, original))
    given = load_engine(
        BUNDLED / "sa2va-tiny", tracker_decoder=str(decoder_folder(tmp_path / form, form, original))
    )
    of_both, of_given, of_none = (
        follow(engine, list(frames[:6]), [0, 3], "masks") for engine in (both, given, tiny)
    )
    np.testing.assert_array_equal(of_given.logits, of_both.logits)
    assert not np.array_equal(of_given.logits, of_none.logits)
    assert of_given.answer.notes == []
    assert given.info.details["tracker_decoder"] == form
    mine, theirs = (follow(engine, list(frames[:6]), [0, 3]).logits for engine in (given, tiny))
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"vision_encoder.weight": torch.ones(1)}, "holds no SAM2 mask decoder"),
        ({f"{SAM2_PREFIX}{DECODER}iou_token.weight": torch.ones(1, 2)}, "is a fine-tuned one"),
        ({"mask_decoder.iou_token.weight": torch.ones(1, 2)}, r"does not fit this model.*shape \(1, 2\)"),
        ({}, "only pickled weights"),
    ],
)
def test_what_is_no_original_decoder_is_refused_before_the_model_is_loaded(
    tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    if tensors:
        save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "sam2_hiera_large.pt").write_bytes(b"pickled")
    with pytest.raises(ModelLoadFailed, match=said):
        load_engine(BUNDLED / "sa2va-tiny", tracker_decoder=str(tmp_path))


def encoded(sam2: Sam2, frame: NDArray[np.uint8]) -> Features:
    with torch.inference_mode():
        picture = torch.from_numpy(square(frame, sam2.image_size).copy())
        return sam2.encode(sam2.pixels(picture.unsqueeze(0)))


def with_two_decoders(folder: Path, original: dict[str, torch.Tensor] | None = None) -> Path:
    """The bundled checkpoint as a Sa2VA-i: its decoder under both names, or ``original`` as SAM2's own."""
    copy = shutil.copytree(BUNDLED / "sa2va-tiny", folder / "tiny-i")
    tensors = load_file(copy / "model.safetensors")
    for name in [name for name in tensors if name.startswith(SAM2_PREFIX + DECODER)]:
        tensors[name.replace(DECODER, FINE_TUNED_DECODER)] = tensors[name].clone()
    tensors |= {SAM2_PREFIX + name: values for name, values in (original or {}).items()}
    save_file(tensors, copy / "model.safetensors")
    return copy


def original_decoder() -> dict[str, torch.Tensor]:
    """In facebookresearch/sam2's names a decoder like the bundled checkpoint's, and yet another one."""
    noise = torch.Generator().manual_seed(0)
    tensors = load_file(BUNDLED / "sa2va-tiny" / "model.safetensors")
    return {
        name.removeprefix(SAM2_PREFIX): values + 0.05 * torch.randn(values.shape, generator=noise).to(values)
        for name, values in tensors.items()
        if name.startswith(SAM2_PREFIX + DECODER)
    }


def decoder_folder(folder: Path, form: str, original: dict[str, torch.Tensor]) -> Path:
    """A checkpoint with that decoder in one of the forms in which it is found."""
    folder.mkdir()
    if form == "sa2va-i":
        with_two_decoders(folder, original).rename(folder / form)
        return folder / form
    if form == "transformers":
        original = {f"mask_decoder.{decoder_name(name)}": values for name, values in original.items()}
    save_file(original | {"no_memory_embedding": torch.zeros(1)}, folder / "model.safetensors")
    return folder
