"""What plugins bring to the worker: model families beside Sa2VA's own, and mask processors.

`PluginEngine` is the engine that the server runs: it picks the family when it is told what to load (ours, a plugin's,
or the code that a trusted checkpoint brings), and runs processors beside it on the same thread. Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.distribution import REMOTE_CODE, WORKER
from sa2va_host.models import unsupported
from sa2va_host.models.checkpoint_folder import CheckpointFolder
from sa2va_host.models.own_code import find_own_code
from sa2va_host.plugins.hookspecs import ModelFamily, Process
from sa2va_host.plugins.manager import create_manager, find_mask_processors, find_model_families
from sa2va_host.plugins.processing import checked, run
from sa2va_host.protocol.specification import ModelInfo, Specification

from .lacking import cannot_import
from .libraries import importing
from .steps import (
    Answer,
    ChatRequest,
    Engine,
    FrameSource,
    MemoryUse,
    Processed,
    ProcessRequest,
    Progress,
    SegmentRequest,
    Step,
)

_log = logging.getLogger("sa2va_worker")


class PluginEngine:
    """Sa2VA's engine, or a plugin's for the checkpoints that it claims; and every mask processor of the worker."""

    def __init__(self) -> None:
        manager = create_manager()
        self._families = find_model_families(manager)
        found = find_mask_processors(manager)
        self._processors = {name: each for name, each in found.items() if each.in_worker}
        self._made: dict[str, Process] = {}
        self._engine: Engine | None = None

    @property
    def info(self) -> ModelInfo:
        return self._loaded.info

    def load(self, spec: Specification) -> Iterator[Step]:
        self._engine = self._choose(spec)
        yield from self._engine.load(spec)

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        return self._loaded.segment(request, frames)

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        return self._loaded.chat(request)

    def memory(self) -> MemoryUse:
        return self._loaded.memory()

    def process(self, request: ProcessRequest) -> Iterator[Step]:
        """One object a step. Raises `InvalidInput` for an unknown processor or option."""
        begun = time.monotonic()
        processor, options = checked(self._processors, request.processor, request.options)
        objects = len(request.probabilities)
        yield Progress("processing", 0, objects, "objects")
        if processor.name not in self._made:
            self._made[processor.name] = processor.make(self.info.device)
        made = self._made[processor.name]
        for index, probability in enumerate(request.probabilities):
            with _on_device(self.info.device):
                result = run(processor, made, probability, request.picture, options)
            yield Processed(index, result)
            yield Progress("processing", index + 1, objects, "objects")
        yield Answer("", objects, {"processing": time.monotonic() - begun})

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("load() must be exhausted before a call")
        return self._engine

    def _choose(self, spec: Specification) -> Engine:
        folder = CheckpointFolder(Path(spec.checkpoint))
        config = _config(folder)
        for family in self._families.values():
            if _claims(family, config):
                _log.info("%s is served by the model family %r", spec.checkpoint, family.name)
                engine: Engine = family.make_engine()
                return engine
        if why := unsupported.refusal_of(folder, trusted=spec.trust_remote_code):
            raise unsupported.error(folder.name, why)
        if config and (spec.trust_remote_code or not _is_native(config)) and find_own_code(folder):
            with _importing(REMOTE_CODE):
                from .own_code.engine import OwnCodeEngine
            return OwnCodeEngine()
        with _importing():
            from .engine import Sa2VAEngine
        return Sa2VAEngine()


def _claims(family: ModelFamily, config: Mapping[str, Any]) -> bool:
    try:
        return bool(config) and family.claims(config)
    except Exception as error:  # noqa: BLE001 - foreign code; a family that cannot tell does not have it
        _log.warning("the model family %r failed to look at a checkpoint: %r", family.name, error)
        return False


def _is_native(config: Mapping[str, Any]) -> bool:
    """Whether one of our own families has it. Raises `ModelLoadFailed` where those cannot be imported."""
    with _importing():
        from .models.families import family
    try:
        family(config)
    except ModelLoadFailed:
        return False
    return True


@contextlib.contextmanager
def _importing(extra: str = WORKER) -> Iterator[None]:
    """Around imports of engines: their libraries, which are those of an extra of ours, may be missing or too old."""
    try:
        with importing():
            yield
    except ImportError as error:
        raise cannot_import(error, extra) from error


def _config(folder: CheckpointFolder) -> dict[str, Any]:
    """The folder's configuration; empty where it cannot be read, which our own engine has the words for."""
    try:
        return folder.config
    except ModelLoadFailed:
        return {}


@contextlib.contextmanager
def _on_device(device: str) -> Iterator[None]:
    """Around a processor that uses PyTorch: errors as our own engine's, and all threads, however small the model is."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    from .device import all_threads, memory_errors

    with memory_errors(torch.device(device)), all_threads():
        yield
