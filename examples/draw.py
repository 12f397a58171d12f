"""Draws the pictures of `sa2va demo` into plugins/cli/examples: `python -m examples.draw`.

They come from the held-out generator, which the bundled model never saw in training. The seeds were chosen
for scenes that are good to look at and use no photograph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.heldout.scenes import draw_clip, draw_picture

FOLDER = Path(__file__).parent.parent / "plugins" / "cli" / "examples"
PICTURES = {"squares": 1007, "triangles": 1022, "pile": 1024, "stars": 1027, "sunset": 1035}
CLIP = ("crossing", 2012)


def main() -> None:
    """Write every picture as JPEG and the clip as an animated WebP."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, seed in PICTURES.items():
        picture = draw_picture(np.random.default_rng(seed), (360, 480))
        Image.fromarray(picture.image).save(FOLDER / f"{name}.jpg", quality=90)
    name, seed = CLIP
    clip = draw_clip(np.random.default_rng(seed), (240, 320), 16)
    first, *rest = [Image.fromarray(frame) for frame in clip.frames]
    first.save(FOLDER / f"{name}.webp", save_all=True, append_images=rest, duration=120, loop=0, quality=88)


if __name__ == "__main__":
    main()
