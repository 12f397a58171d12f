"""The node Sa2VA Model Options: what the other nodes do not ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from sa2va_host.config import load_settings, settings_file
from sa2va_host.errors import InvalidInput
from sa2va_host.generation import MAX_NEW_TOKENS, Generation
from sa2va_host.protocol.specification import AUTO, QUANTIZATIONS

from .inputs import OPTIONS, fixed_seed, schema
from .options import Options

NOW, MINUTES, FOR_EVER, SETTING = "unload now", "minutes", "for ever", "as set"
ATTENTION = (AUTO, "sdpa", "flash_attention_2", "eager")
DTYPES = (AUTO, "bfloat16", "float16", "float32")


_RARER = (
    *("attention", "dtype", "worker_python", "revision", "trust_remote_code"),
    *("do_sample", "temperature", "top_p", "seed", "top_k", "min_p", "repetition_penalty"),
)
"""Inputs that few workflows change."""


class Sa2VAModelOptions(io.ComfyNode):
    """Starts nothing: what it says takes effect in the nodes that it is connected to."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sa2VAModelOptions",
            "Sa2VA Model Options",
            "How the model is loaded, how long it stays, and how it answers. Not needed: without it the best for this"
            " machine is chosen.",
            words=(
                "8bit",
                "quantization",
                "flash attention",
                "unload",
                "VRAM",
                "offload",
                "sampling",
                "seed",
            ),
            rarer=_RARER,
            inputs=[
                io.Combo.Input(
                    "quantization",
                    options=list(QUANTIZATIONS),
                    default="none",
                    tooltip="8bit (use_8bit in other packs) and 4bit make the language model smaller, for GPUs with"
                    " less memory. They need bitsandbytes in the worker's environment.",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTION),
                    default=AUTO,
                    tooltip="auto takes the fastest that works here. flash_attention_2 (use_flash_attn in other packs)"
                    " needs flash-attn in the worker's environment.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default=AUTO,
                    tooltip="The number format of the weights. auto: bfloat16 on GPUs that have it.",
                ),
                io.String.Input(
                    "device",
                    default=AUTO,
                    tooltip="Where the worker runs: auto, cuda, cuda:1, mps or cpu. balanced spreads the model over all"
                    " NVIDIA GPUs; offload keeps in the computer's memory what one GPU has no room for.",
                ),
                io.Combo.Input(
                    "keep_alive",
                    options=[SETTING, NOW, MINUTES, FOR_EVER],
                    default=SETTING,
                    tooltip="When the model leaves the memory: at once after each node (unload in other packs), some"
                    " minutes after the last one, never, or as your settings say (5 minutes where they do not).",
                ),
                io.Float.Input(
                    "minutes",
                    default=5.0,
                    min=0.1,
                    max=1440.0,
                    step=0.5,
                    tooltip="For keep_alive 'minutes': how many, from the end of the last call.",
                ),
                io.String.Input(
                    "worker_python",
                    default="",
                    tooltip="The Python that runs the worker. Empty: what `sa2va setup` has made, else ComfyUI's own. "
                    "Counts only where your sa2va.toml says trust_workflows = true.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=MAX_NEW_TOKENS,
                    min=1,
                    max=1 << 20,
                    tooltip="The longest answer, in tokens.",
                ),
                io.Boolean.Input(
                    "do_sample",
                    default=False,
                    tooltip="Draw words at random instead of taking the likeliest. temperature, top_p, top_k, min_p and"
                    " seed count only then.",
                ),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.05,
                    tooltip="Below 1 likely words become likelier. Only with do_sample.",
                ),
                io.Float.Input(
                    "top_p",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Draw from the likeliest words that have this share together. Only with do_sample.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=(1 << 53) - 1,
                    control_after_generate=fixed_seed(),
                    tooltip="The same seed draws the same words. Only with do_sample.",
                ),
                *_later_inputs(),
            ],
            outputs=[
                OPTIONS.Output(
                    "options", display_name="options", tooltip="For the input options of other nodes."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        quantization: str,
        attention: str,
        dtype: str,
        device: str,
        keep_alive: str,
        minutes: float,
        worker_python: str,
        max_new_tokens: int,
        do_sample: bool,
        temperature: float,
        top_p: float,
        seed: int,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 0.0,
        revision: str = "",
        trust_remote_code: bool = False,
    ) -> io.NodeOutput:
        _check_choices(quantization=(quantization, QUANTIZATIONS), dtype=(dtype, DTYPES))
        _check_trust(trust_remote_code, worker_python.strip(), attention)
        sampling: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k or None,
            "min_p": min_p or None,
            "seed": seed,
        }
        generation = Generation(
            max_new_tokens=None if max_new_tokens == MAX_NEW_TOKENS else max_new_tokens,
            repetition_penalty=repetition_penalty or None,
            do_sample=do_sample,
            **(sampling if do_sample else {}),
        )
        return io.NodeOutput(
            Options(
                quantization=_said(quantization, "none"),
                attention=_said(attention, AUTO),
                dtype=_said(dtype, AUTO),
                device=_said(device.strip(), AUTO),
                keep_alive=seconds(keep_alive, minutes),
                worker_python=worker_python.strip() or None,
                revision=revision.strip() or None,
                trust_remote_code=trust_remote_code or None,
                generation=generation,
            )
        )


def _check_choices(**given: tuple[str, Sequence[str]]) -> None:
    """Raises `InvalidInput` for what the node does not offer: ComfyUI does not check what comes over a wire."""
    for name, (value, offered) in given.items():
        if value not in offered:
            raise InvalidInput(f"{name} is {value!r}.", advice=f"Use one of {', '.join(offered)}.")


def _check_trust(trust_remote_code: bool, worker_python: str, attention: str) -> None:
    """Raises `InvalidInput` where a workflow says what runs on this machine and the user lets none do so."""
    if load_settings().trust_workflows:
        return
    if trust_remote_code:
        what, way_out = "run code that a checkpoint brings", "turn trust_remote_code off"
    elif worker_python:
        what = f"run the program {worker_python!r}"
        way_out = "leave worker_python empty: your own settings file may name it"
    elif attention not in ATTENTION:
        what, way_out = f"fetch and run the kernel {attention!r}", f"use one of {', '.join(ATTENTION)}"
    else:
        return
    raise InvalidInput(
        f"The workflow asks to {what}, and here no workflow may.",
        advice=f"If you trust it, write trust_workflows = true into {settings_file()}, or {way_out}.",
    )


def _later_inputs() -> list[Any]:
    """They came later than the others: workflows that do not have them mean what changes nothing."""
    return [
        io.Int.Input(
            "top_k",
            default=0,
            min=0,
            max=1 << 20,
            optional=True,
            tooltip="Draw from this many of the likeliest words; 0 from all. Only with do_sample.",
        ),
        io.Float.Input(
            "min_p",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Draw from words at least this many times as likely as the likeliest; 0 from all. Only with"
            " do_sample.",
        ),
        io.Float.Input(
            "repetition_penalty",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.05,
            optional=True,
            tooltip="Above 1 makes words that were said already less likely, with do_sample or without. 0 takes what"
            " the checkpoint asks for.",
        ),
        io.String.Input(
            "revision",
            default="",
            optional=True,
            tooltip="The branch, tag or commit of a model of the hub. Empty: main, or what your settings say.",
        ),
        io.Boolean.Input(
            "trust_remote_code",
            default=False,
            optional=True,
            tooltip="Run the code that a checkpoint brings, which may do whatever you may. Models of the hub need a"
            " commit as revision. Counts only where your sa2va.toml says trust_workflows = true.",
        ),
    ]


def seconds(keep_alive: str, minutes: float) -> float | None:
    """How long the worker stays, as the setting `keep_alive` has it; None leaves it to the setting."""
    known = {SETTING: None, NOW: 0.0, MINUTES: minutes * 60.0, FOR_EVER: -1.0}
    if keep_alive not in known:
        raise InvalidInput(f"keep_alive is {keep_alive!r}.", advice=f"Use one of {', '.join(known)}.")
    return known[keep_alive]


def _said(value: str, default: str) -> str | None:
    """None for what stands there unless somebody changes it, so that the user's settings count."""
    return None if value in ("", default) else value
