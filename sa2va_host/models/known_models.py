"""The Sa2VA checkpoints that the hub has: one table for `sa2va models --all`, docs/models.md and other front ends.

Plugins and the settings' table ``models`` add to it. What no public source says is left out; what is computed instead
is marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sa2va_host.plugins.hookspecs import KnownModel

if TYPE_CHECKING:
    from sa2va_host.config import Settings

QUANTIZED_BYTES: Mapping[str, float] = {"none": 2.0, "8bit": 1.0, "4bit": 0.516}
"""Bytes of a quantizable parameter. 4bit is nf4 with double quantization: 4.127 bits (Dettmers et al., QLoRA,
arXiv 2305.14314, section 3).
"""
PLAIN = 2.0
"""Bytes of any other parameter: models run in 16 bits, and quantization leaves these alone."""
WORKING_MEMORY = 1e9
"""Bytes for images, the conversation and CUDA itself: with them, what is computed meets what is published."""
_APACHE = "Apache-2.0"


def _ours(
    name: str,
    family: str,
    parameters: float,
    quantizable: float,
    *,
    download: float = 0,
    memory: tuple[int, ...] = (),
    licence: str = "",
) -> KnownModel:
    """An entry in billions of parameters and GB; ``memory`` without quantization, then in 8 bit."""
    published = {each: size * 10**9 for each, size in zip(QUANTIZED_BYTES, memory, strict=False)}
    return KnownModel(
        name,
        family,
        parameters=round(parameters * 1e9),
        quantizable=round(quantizable * 1e9),
        download=round(download * 1e9),
        memory=published,
        licence=licence,
    )


# Parameters are counted from each family's configuration (vision tower, projector, language model, SAM2's Hiera-Large,
# `text_hidden_fcs`); the Qwen files hold `lm_head` beside the embedding, also where the base model ties the two. Memory
# is what upstream publishes by size. Downloads and licences are the hub's (2026). The weights lie there in float32,
# with which the counts agree to 1 %; for InternVL2.5 and 3, the 1B aside, with the vision tower in 16 bits.
TABLE: tuple[KnownModel, ...] = (
    _ours("ByteDance/Sa2VA-Qwen3-VL-2B", "qwen3_vl", 2.67, 1.41, download=10.68, licence=_APACHE),
    _ours(
        "ByteDance/Sa2VA-Qwen3-VL-4B", "qwen3_vl", 5.06, 3.63, download=20.2, memory=(10, 6), licence=_APACHE
    ),
    _ours(
        "ByteDance/Sa2VA-Qwen2_5-VL-3B",
        "qwen2_5_vl",
        4.29,
        2.77,
        download=17.2,
        memory=(8, 5),
        licence=_APACHE,
    ),
    _ours(
        "ByteDance/Sa2VA-Qwen2_5-VL-7B",
        "qwen2_5_vl",
        8.53,
        6.53,
        download=34.1,
        memory=(16, 10),
        licence=_APACHE,
    ),
    _ours(
        "ByteDance/Sa2VA-InternVL3-2B", "internvl", 2.32, 1.31, download=8.67, memory=(6, 4), licence=_APACHE
    ),
    _ours(
        "ByteDance/Sa2VA-InternVL3-8B",
        "internvl",
        8.18,
        6.53,
        download=32.1,
        memory=(18, 11),
        licence=_APACHE,
    ),
    _ours(
        "ByteDance/Sa2VA-InternVL3-14B",
        "internvl",
        15.37,
        13.21,
        download=60.9,
        memory=(30, 18),
        licence=_APACHE,
    ),
    _ours("ByteDance/Sa2VA-1B", "internvl", 1.01, 0.36, download=4.05, licence=_APACHE),
    _ours("ByteDance/Sa2VA-4B", "internvl", 3.94, 2.77, download=15.2, licence=_APACHE),
    _ours("ByteDance/Sa2VA-8B", "internvl", 8.32, 6.98, download=32.7, licence=_APACHE),
    _ours("ByteDance/Sa2VA-26B", "internvl", 25.78, 18.72, download=92.0, licence=_APACHE),
    _ours("kumuji/Sa2VA-i-1B", "internvl", 1.01, 0.36),
    _ours("kumuji/Sa2VA-i-4B", "internvl", 3.94, 2.77),
    _ours("kumuji/Sa2VA-i-8B", "internvl", 8.32, 6.98),
    _ours("kumuji/Sa2VA-i-26B", "internvl", 25.78, 18.72),
)

_MADE_OF = {f"kumuji/Sa2VA-i-{size}": f"ByteDance/Sa2VA-{size}" for size in ("1B", "4B", "8B", "26B")}
"""Sa2VA-i has the weights of Sa2VA, and SAM2's original mask decoder besides (arXiv 2509.19082, section 3)."""
_STORED = 4
"""Bytes of a parameter on the hub, where the weights lie in float32."""

HEADINGS = ("NAME", "FAMILY", "PARAMETERS", "DOWNLOAD", "MEMORY", "8BIT", "4BIT", "LICENCE")
"""Of `cells`."""
UNKNOWN = "-"


def known_models(settings: Settings, plugged: Iterable[KnownModel] = ()) -> list[KnownModel]:
    """The table, then what plugins register (`sa2va_host.plugins.manager.find_known_models`), then what the settings
    name.

    A name counts once, by the first that has it.
    """
    named = (KnownModel(name) for name in settings.models)
    once: dict[str, KnownModel] = {}
    for model in (*TABLE, *plugged, *named):
        once.setdefault(model.name, model)
    return list(once.values())


def memory(model: KnownModel, quantization: str) -> int:
    """About how many bytes of GPU memory a model takes: as published, else computed; 0 where nobody knows.

    ``quantization`` is one of `QUANTIZED_BYTES`.
    """
    return model.memory.get(quantization) or computed_memory(model, quantization)


def computed_memory(model: KnownModel, quantization: str) -> int:
    """As `memory`, from the parameters alone, whatever is published; 0 where their number is not known."""
    if not model.parameters:
        return 0
    plain = model.parameters - model.quantizable
    return round(model.quantizable * QUANTIZED_BYTES[quantization] + plain * PLAIN + WORKING_MEMORY)


def download_size(model: KnownModel) -> int:
    """Bytes of the download: as published, else about; 0 where nobody knows."""
    if model.download:
        return model.download
    base = _MADE_OF.get(model.name)
    return next((each.download for each in TABLE if each.name == base), model.parameters * _STORED)


def download_cell(model: KnownModel) -> str:
    """`20.2 GB`, or `103 MB`; a `~` stands before what is computed; empty where nobody knows."""
    size = download_size(model)
    text = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return ("" if model.download else "~") + text if size else ""


def cells(model: KnownModel) -> tuple[str, ...]:
    """One line of a table under `HEADINGS`; a `~` stands before what is computed."""
    return (
        model.name,
        model.family or UNKNOWN,
        f"{model.parameters / 1e9:.1f}B" if model.parameters else UNKNOWN,
        download_cell(model) or UNKNOWN,
        *(_memory_cell(model, quantization) for quantization in QUANTIZED_BYTES),
        model.licence or UNKNOWN,
    )


def _memory_cell(model: KnownModel, quantization: str) -> str:
    size = memory(model, quantization)
    computed = "" if quantization in model.memory else "~"
    return f"{computed}{size / 1e9:.0f} GB" if size else UNKNOWN
