"""SAM2's original mask decoder for a model whose own one was fine-tuned, out of another checkpoint's files.

Sa2VA trained no part of SAM2 but the mask decoder, and that on single frames: what propagates masks best is the decoder
that SAM2 came with (arXiv 2509.19082). Called by `sa2va`, once the model's own weights are there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor

from sa2va_host.errors import ModelLoadFailed

from .checkpoint import Checkpoint
from .filling import fill
from .names import DECODER, FINE_TUNED_DECODER, OUR_DECODER, SAM2_PREFIX, decoder_name
from .sam2 import Sam2

_ADVICE = "Name SAM2's own weights as safetensors (facebook/sam2-hiera-large), or a Sa2VA-i checkpoint."


class TrackerDecoder(Checkpoint):
    """A folder with SAM2's original mask decoder, of which nothing else is read.

    It is SAM2 itself, in transformers' names or in facebookresearch/sam2's, or a Sa2VA-i.
    """

    beginnings = (OUR_DECODER, DECODER, SAM2_PREFIX + DECODER, SAM2_PREFIX + FINE_TUNED_DECODER)

    def attach(self, sam2: Sam2, rehearsal: bool = False) -> None:
        """Let `sam2` propagate with this decoder, in the dtype and on the device of its own one.

        `rehearsal` is that of `fill`. Raises `ModelLoadFailed` where the folder has no such decoder, a fine-tuned one,
        or one of another shape.
        """
        if not self.names:
            raise ModelLoadFailed(f"{self.folder} holds no SAM2 mask decoder.", advice=_ADVICE)
        tuned = any(name.startswith(SAM2_PREFIX) for name in self.names)
        if tuned and not any(name.startswith(SAM2_PREFIX + FINE_TUNED_DECODER) for name in self.names):
            raise ModelLoadFailed(
                f"The mask decoder in {self.folder} is a fine-tuned one, not SAM2's original.", advice=_ADVICE
            )
        decoder = copy.deepcopy(sam2.model.mask_decoder)
        try:
            for _ in fill(decoder, self, _unpack, {}, rehearsal):
                pass
        except ModelLoadFailed as error:
            raise ModelLoadFailed(
                f"The mask decoder in {self.folder} does not fit this model: {error.message}", advice=_ADVICE
            ) from error
        sam2.original_decoder = decoder


def _unpack(name: str, values: Tensor) -> Iterable[tuple[str, Tensor]]:
    ours = decoder_name(name)
    return [(ours, values)] if ours else []
