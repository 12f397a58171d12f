"""Every hook that a plugin can implement, on one screen. `docs/plugins.md` shows each at work.

A plugin is a module, found by an entry point of the group ``sa2va`` in the environment of the process that uses it:
front ends and the masks' processors of the host in the host's, model families and processors of the worker in the
worker's, which may be another interpreter. Whatever raises is reported with its plugin's name and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROJECT = "sa2va"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Options: TypeAlias = "Mapping[str, float | str]"
Process: TypeAlias = "Callable[[NDArray[np.float32], NDArray[np.uint8], Options], NDArray[np.float32]]"
"""Probability float32 `[height, width]` 0..1, picture uint8 RGB `[height, width, 3]`, options -> probability."""


@dataclass(frozen=True)
class FrontEnd:
    """Something a person uses, as ``sa2va NAME ...``: `run` takes the arguments after its name and returns the exit
    code.
    """

    name: str
    summary: str
    run: Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class ModelFamily:
    """A kind of checkpoint that a worker can serve, beside Sa2VA's own."""

    name: str
    claims: Callable[[Mapping[str, Any]], bool]
    """Whether a checkpoint folder is of this family, by the content of its ``config.json``."""
    make_engine: Callable[[], Any]
    """Makes a `sa2va_worker.steps.Engine`, on the worker's engine thread. Import torch in here, not earlier."""


@dataclass(frozen=True)
class MaskProcessor:
    """Makes one object's probabilities better, knowing the picture: ``--process NAME`` and `Sa2VA.process`."""

    name: str
    summary: str
    make: Callable[[str], Process]
    """Given the device (``cpu`` on the host), makes the function that does the work; called once a process."""
    options: Options = field(default_factory=dict)
    """Every option with its default. A caller's value must be of the default's type, number or text. An option
    named ``model`` is a checkpoint: the worker is given its folder.
    """
    in_worker: bool = False
    """Whether it runs in the worker, where the accelerator is, and not in the front end's process."""


@dataclass(frozen=True)
class KnownModel:
    """A checkpoint that the hub has, for lists. What nobody knows stays empty or 0."""

    name: str
    """`ORG/NAME`, as the hub calls it."""
    family: str = ""
    """As `sa2va models` calls it: ``qwen3_vl``, ``qwen2_5_vl``, ``internvl``, or a plugin's."""
    parameters: int = 0
    quantizable: int = 0
    """The parameters that 8bit and 4bit make smaller: those of the language model's linear layers."""
    download: int = 0
    """Bytes."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Published bytes of GPU memory by quantization: ``none``, ``8bit``, ``4bit``. What is missing is computed."""
    licence: str = ""
    """The SPDX identifier of the weights' licence."""


@hookspec
def register_front_ends(register: Callable[[FrontEnd], None]) -> None:
    """Host: call `register` once for each front end. Import what it needs in its `run`, not here."""


@hookspec
def register_model_families(register: Callable[[ModelFamily], None]) -> None:
    """Worker: call `register` once for each family. The first one that claims a checkpoint has it."""


@hookspec
def register_mask_processors(register: Callable[[MaskProcessor], None]) -> None:
    """Host and worker: call `register` once for each processor; each process uses those that run in it."""


@hookspec
def register_known_models(register: Callable[[KnownModel], None]) -> None:
    """Host: call `register` once for each checkpoint that lists should name. Nothing is fetched."""
