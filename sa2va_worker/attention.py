"""Which attention implementation a model runs with: the one that was asked for where it works, else the next best.

Libraries for attention can be installed and imported on machines where they then fail: another GPU, another dtype,
another build of PyTorch. So a candidate is run once before anything is loaded: a language model of one small layer,
which transformers builds and dispatches as it does ours, reads a prompt and one more token on the real device in the
real dtype.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, Qwen2Config, Qwen2Model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_flash_attn_2_available

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.specification import AUTO

FLASH = "flash_attention_2"
FALLBACKS = ("sdpa", "eager")
"""What is tried after the one that was asked for; the last is PyTorch's plain operations, which run everywhere."""
HALF = (torch.float16, torch.bfloat16)
"""The dtypes that flash-attn computes in (flash-attn's README, "NVIDIA CUDA Support")."""
_KERNEL = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?(:\w+)?", re.ASCII)
"""A prebuilt kernel as transformers names it (its ``integrations/hub_kernels.py``): `ORG/NAME@REVISION:FUNCTION`."""
_LONGEST_REASON = 200
_log = logging.getLogger("sa2va_worker")


@dataclass(frozen=True, slots=True)
class Attention:
    """The implementation in use by transformers' name, what was asked for, and why the one follows from the other."""

    name: str
    asked: str
    reason: str

    @property
    def details(self) -> dict[str, str]:
        """For `ModelInfo.details`."""
        return {"attention_asked": self.asked, "attention_reason": self.reason}


def choose(asked: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The first implementation that runs here, said in one line of the log.

    ``asked`` is `auto`, `eager`, a name that transformers knows (`sdpa`, `flash_attention_2`), or a prebuilt kernel
    such as `kernels-community/flash-attn2`, which transformers has the library ``kernels`` fetch. `auto` fetches
    nothing. Raises `ModelLoadFailed` for a word that is none of these; whatever cannot run here falls back.
    """
    if asked != AUTO and not _is_known(asked):
        raise ModelLoadFailed(
            f"attention {asked!r} is not supported.",
            advice=f"Use one of: auto, {FLASH}, {', '.join(FALLBACKS)}, or a kernel such as"
            " kernels-community/flash-attn2.",
        )
    chosen = _first_that_runs(asked, device, dtype)
    fell_back = asked not in (AUTO, chosen.name) and chosen.name in FALLBACKS
    level = logging.WARNING if fell_back else logging.INFO
    _log.log(level, "attention is %s: %s", chosen.name, chosen.reason)
    return chosen


def configure(settings: PreTrainedConfig, name: str) -> None:
    """Have transformers build the language model of a vision-language configuration with ``name``, the tower with SDPA.

    A picture is read once for an answer of many tokens, and `run` has tried no vision tower.
    """
    settings._attn_implementation = name  # noqa: SLF001 - its public setter needs a built model
    settings.vision_config._attn_implementation = FALLBACKS[0]  # noqa: SLF001 - as above


def run(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Run one implementation on small tensors; returns the name of what transformers took for it.

    That is another one where flash-attn is missing and the library ``kernels`` has it prebuilt. Raises whatever the
    implementation raises, and ArithmeticError for results that are no numbers.
    """
    config = Qwen2Config(
        vocab_size=16,
        hidden_size=256,
        intermediate_size=64,
        num_hidden_layers=1,
        # Heads of 128 numbers that share keys, as the language models of Sa2VA have them.
        num_attention_heads=2,
        num_key_value_heads=1,
        dtype=dtype,
    )
    config._attn_implementation = name  # noqa: SLF001 - as above
    with torch.random.fork_rng(devices=[]):
        model = Qwen2Model(config).eval().to(device, dtype)
    prompt = torch.arange(8, device=device).unsqueeze(0)
    with torch.inference_mode():
        read = model(prompt, use_cache=True)
        spoken = model(prompt[:, :1], past_key_values=read.past_key_values)
    # Asking for the value also waits for the device, where a kernel's failure shows only then.
    if not bool(spoken.last_hidden_state.isfinite().all()):
        raise ArithmeticError("its results are not finite")
    return str(model.config._attn_implementation)  # noqa: SLF001 - transformers has no public name for it


def _is_known(name: str) -> bool:
    return name == "eager" or name in ALL_ATTENTION_FUNCTIONS or _KERNEL.fullmatch(name) is not None


def _first_that_runs(asked: str, device: torch.device, dtype: torch.dtype) -> Attention:
    where = f"on {device} in {str(dtype).removeprefix('torch.')}"
    failures = list(_passed_over(asked, device, dtype))
    for name in _candidates(asked, passed_over=bool(failures)):
        try:
            used = run(name, device, dtype)
        except Exception as error:  # noqa: BLE001 - foreign code, which may fail in any way; all of them mean no
            failures.append(f"{name} does not run {where} ({_one_line(error)})")
            continue
        return Attention(used, asked, "; ".join(failures) or f"it runs {where}")
    # Even the plain operations failed: the device is full or broken, which loading will say better.
    return Attention(FALLBACKS[-1], asked, "; ".join(failures))


def _candidates(asked: str, *, passed_over: bool) -> list[str]:
    """Best first, each once."""
    first = asked if asked != AUTO else FALLBACKS[0] if passed_over else FLASH
    return list(dict.fromkeys([first, *FALLBACKS]))


def _passed_over(asked: str, device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """Why `auto` does not even try flash-attn, if so."""
    if asked != AUTO:
        return
    if device.type != "cuda" or dtype not in HALF:
        yield f"{FLASH} is for CUDA in half precision"
    elif not is_flash_attn_2_available():
        yield "flash-attn is not installed"


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
