"""A second, independent generator of scenes and prompts: other drawing code, other wordings than training's.

Nothing here is ever trained on. A model that scores as well on these scenes as on those it was trained with
has learned the task, and not the first generator.
"""

from training.heldout.scenes import draw_clip, draw_picture, random_size
from training.heldout.wording import ask, ask_clip

__all__ = ["ask", "ask_clip", "draw_clip", "draw_picture", "random_size"]
