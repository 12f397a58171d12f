"""A model of a checkpoint's own classes: loaded by transformers, asked through `predict_forward`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from sa2va_host.errors import ModelLoadFailed, Sa2VAError
from sa2va_host.generation import Generation
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.models.checkpoint_folder import CheckpointFolder
from sa2va_host.models.own_code import OwnCode
from sa2va_host.protocol.specification import AUTO
from sa2va_worker.steps import Picture

from .seam import Seam, Spoken
from .tracking import Tracking
from .turns import in_turns
from .without_cuda import placed

WRITTEN_FOR = "4.57"
"""The transformers that upstream's code was written for, where `config.json` does not say."""
_log = logging.getLogger("sa2va_worker")


class OwnModel:
    """What the folder's code made, on one device. One answer is generated at a time: the code keeps state of it."""

    def __init__(
        self,
        folder: CheckpointFolder,
        code: OwnCode,
        device: torch.device,
        dtype: torch.dtype,
        attention: str = AUTO,
    ) -> None:
        """Runs the folder's code. Raises `ModelLoadFailed` for whatever that raises."""
        self._device = device
        self._dtype = dtype
        self._folder = folder
        if _major(transformers.__version__) != _major(self._written_for):
            # Such as the state that Qwen3-VL reports last, from which masks are made.
            _log.warning(
                "%s was written for transformers %s and runs under %s: the same code may answer something else",
                folder.name,
                self._written_for,
                transformers.__version__,
            )
        self._tokenizer: Any = self._load(transformers.AutoTokenizer)
        self._processor: Any = None
        if (folder.folder / "preprocessor_config.json").is_file():
            self._processor = self._load(transformers.AutoProcessor)
            _, settings = folder.image_processor()
            if not str(settings.get("image_processor_type")).endswith("Fast"):
                # 4.57 takes the fast one for some names that declare the one with Pillow, and its pixels move the
                # logits by a hundredth of their spread.
                self._processor.image_processor = self._load(transformers.AutoImageProcessor, use_fast=False)
        self.model: Any = self._load(
            getattr(transformers, code.auto_class),
            dtype=dtype,
            # Straight to the device, one tensor after the other.
            device_map={"": device},
            use_safetensors=True,
            **({} if attention == AUTO else {"attn_implementation": attention}),
        ).eval()
        self._seam = Seam(self.model)
        self.end_tokens = self._seam.end_tokens | {self._tokenizer.eos_token_id}
        if hasattr(self.model, "preparing_for_generation"):
            self.model.preparing_for_generation(self._tokenizer)
        # Upstream writes bfloat16 there, and casts pictures to it, whatever the weights are in.
        self.model.torch_dtype = dtype

    @property
    def image_size(self) -> int:
        """The side of the frames that its SAM2 sees, in pixels."""
        return int(self.model.grounding_encoder.sam2_model.image_size)

    @property
    def attention(self) -> str:
        """The attention implementation of its language model, by transformers' name."""
        return str(getattr(self._seam.speakers[0].config, "_attn_implementation", AUTO))

    def speak(
        self, spoken: Spoken, prompt: str, pictures: Sequence[Picture], is_video: bool, asked: Generation
    ) -> Generator[int, None, None]:
        """Answer; yields each token as it is generated, and fills ``spoken``."""
        return in_turns(partial(self._predict, spoken, prompt, pictures, is_video, asked))

    def decode(self, token_ids: list[int]) -> str:
        """Special tokens and all."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))

    def tracking(self, answers: Sequence[Spoken]) -> Tracking:
        """Follows what was spoken of in all answers."""
        prompts: Tensor = torch.cat([each for spoken in answers for each in spoken.prompts], dim=1)
        with placed(self._device):
            return Tracking(self.model.grounding_encoder, prompts, self._device, self._dtype)

    def _predict(
        self,
        spoken: Spoken,
        prompt: str,
        pictures: Sequence[Picture],
        is_video: bool,
        asked: Generation,
        on_token: Callable[[int], None],
    ) -> None:
        """One `predict_forward`, from its beginning to its end."""
        images = [Image.fromarray(picture) for picture in pictures]
        # Every family takes this for the place of the pictures; those that have a place of their own remove it.
        text = prompt if not images or "<image>" in prompt else f"<image>{prompt}"
        given = {
            "image": images[0] if images and not is_video else None,
            "video": images if is_video else None,
            "text": text,
            "tokenizer": self._tokenizer,
            "processor": self._processor,
        }
        taken = inspect.signature(self.model.predict_forward).parameters
        arguments = {name: value for name, value in given.items() if name in taken}
        with placed(self._device), torch.inference_mode(), self._seam.listen(spoken, asked, on_token):
            answer = self.model.predict_forward(**arguments)
        spoken.text = str(answer["prediction"])
        if spoken.token_ids and spoken.token_ids[-1] in self.end_tokens:
            spoken.text = spoken.text.removesuffix(self.decode(spoken.token_ids[-1:]))

    def _load(self, auto_class: Any, **options: Any) -> Any:
        """`from_pretrained`, which runs the folder's code: it is trusted, and nothing is asked or fetched."""
        try:
            with placed(self._device):
                return auto_class.from_pretrained(
                    str(self._folder.folder), trust_remote_code=True, local_files_only=True, **options
                )
        except (Sa2VAError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            here, there = transformers.__version__, self._written_for
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
            raise ModelLoadFailed(
                f"The code of {self._folder.name} failed to load under transformers {here}: {why}.",
                advice=""
                if _major(here) == _major(there)
                else f"It was written for {there}: make an environment with `{sa2va_command('setup', 'remote-code')}`.",
            ) from error

    @property
    def _written_for(self) -> str:
        return str(self._folder.config.get("transformers_version") or WRITTEN_FOR)


def _major(version: str) -> str:
    return version.partition(".")[0]
