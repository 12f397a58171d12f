"""What trainings leave around and beside a model's tensors: prefixes of wrappers, tables that are computed anyway."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ANCHOR = "text_hidden_fcs."
"""What every Sa2VA has at the root: what stands before it, and before all other names, is no part of a name."""
_INNER = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into the names of what they wrap, at any depth."""
_OUTER = re.compile(r"(module|base_model\.model)\.")
"""What DataParallel and DeepSpeed, and PEFT, put before all names."""
_COMPUTED = re.compile(r"(.*\.)?(inv_freq|original_inv_freq|position_ids|cos_cached|sin_cached)")
"""Tables of positions, which older versions of transformers saved: every model computes them itself."""
_SHOWN = 3


@dataclass(frozen=True)
class Naming:
    """The tensors of a checkpoint by name."""

    ours: Mapping[str, str]
    """On-disk name -> the name without wrappers; what no model needs is not in it."""
    notes: list[str]
    """What was passed over, a sentence each."""


def unwrap(stored: Sequence[str]) -> Naming:
    """The names that a checkpoint's tensors have without wrappers.

    A prefix goes where all names have it, else none of them loses it. Names that would become the same stay.
    """
    names = {name: _INNER.sub("", name) for name in stored}
    if len(set(names.values())) < len(names):
        names = {name: name for name in stored}
    inner = dict.fromkeys(
        match[1] for name in stored if names[name] != name for match in _INNER.finditer(name)
    )
    outer = _shared(names.values())
    notes = []
    wrappers = [*([repr(outer)] if outer else []), *(f"'{each}.'" for each in inner)]
    if wrappers:
        notes.append(
            f"The names of the tensors hold {' and '.join(wrappers)}, as a wrapper of the training left them:"
            " that is passed over."
        )
    ours = {name: short.removeprefix(outer) for name, short in names.items()}
    computed = [name for name, short in ours.items() if _COMPUTED.fullmatch(short)]
    if computed:
        notes.append(
            f"{len(computed)} {'tensors are' if len(computed) > 1 else 'tensor is'} passed over, since the model"
            f" computes such tables itself: {', '.join(computed[:_SHOWN])}"
            f"{', ...' if len(computed) > _SHOWN else ''}."
        )
    return Naming({name: short for name, short in ours.items() if name not in set(computed)}, notes)


def _shared(names: Iterable[str]) -> str:
    """The prefix of wrappers that all names share; empty where they share none."""
    names = list(names)
    anchored = next((name for name in names if f".{ANCHOR}" in name), "")
    prefix = anchored[: anchored.index(f".{ANCHOR}") + 1] if anchored else ""
    if prefix and all(name.startswith(prefix) for name in names):
        return prefix
    prefix = ""
    while names:
        found = {match[0] for name in names if (match := _OUTER.match(name, len(prefix)))}
        if len(found) != 1 or not all(name.startswith(prefix + min(found)) for name in names):
            break
        prefix += min(found)
    return prefix
