"""A video through a real worker and the bundled model, frame by frame."""

from __future__ import annotations

import numpy as np

from sa2va_host import Sa2VA
from training.heldout import draw_clip


def test_frames_and_the_whole_are_the_same_and_each_object_has_a_presence() -> None:
    clip = draw_clip(np.random.default_rng(4), (120, 160), 8)
    with Sa2VA("sa2va-tiny", device="cpu", keep_alive=5) as sa:
        with sa.track(iter(clip.frames), "everything", "first:3") as track:
            frames = list(track)
        whole = sa.segment_video(clip.frames, "everything", "first:3")
    assert track.text == whole.text
    np.testing.assert_array_equal(np.stack([frame.logits for frame in frames], axis=1), whole.logits)
    for frame in frames:
        assert frame.masks().shape == (len(whole), 120, 160)
        assert frame.presence is not None
        assert frame.presence.shape == (len(whole),)
        assert ((frame.presence >= 0) & (frame.presence <= 1)).all()
