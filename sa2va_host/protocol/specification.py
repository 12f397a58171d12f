"""What a worker serves, and what it became once the model was in memory.

Called by the client (to ask for a worker), the launcher (to find or start one) and the engine (to load
one). Knows nothing of sockets, processes or torch: dtypes and devices are words here.
"""

from __future__ import annotations

import hashlib

import msgspec

AUTO = "auto"
QUANTIZATIONS = ("none", "8bit", "4bit")
"""How many bits the language model's weights are rounded to; none leaves them in the dtype."""
_CHOSEN = ("device", "dtype", "attention")
"""What the engine chooses while it loads, where it was asked for `AUTO`."""


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """One model as asked for. Two with one `key` share one worker. Part of a worker's record, so unknown fields
    are passed over as there.

    ``checkpoint`` is an absolute folder; ``"auto"`` elsewhere means "whatever the running worker has, or the best this
    machine offers".
    """

    checkpoint: str
    revision: str = ""
    device: str = AUTO
    dtype: str = AUTO
    attention: str = AUTO
    quantization: str = "none"
    trust_remote_code: bool = False
    """Whether the checkpoint's own code may run; then it does, where there is any."""
    tracker_decoder: str = ""
    """An absolute folder whose SAM2 mask decoder propagates masks; empty takes the checkpoint's own."""
    identity: str = ""
    """What ``checkpoint`` holds (`sa2va_host.models.identity`), so that another folder which holds the same has the
    same worker; empty for what is no folder, which only its name identifies.
    """
    tracker_identity: str = ""
    """The same of ``tracker_decoder``."""
    program: str = ""
    """The worker's code and version (`sa2va_host.machine.worker_program.worker_identity`)."""
    interpreter: str = ""
    """The environment whose Python must run the worker (`sa2va_host.machine.environments`); empty where nobody named
    one: then any worker will do, and the client's own Python starts it.
    """

    @property
    def checkpoint_key(self) -> str:
        """Names the checkpoint alone: one spawn lock for each (16 hex digits)."""
        return _digest(*self._checkpoint)

    @property
    def key(self) -> str:
        """Names the whole specification: one connection record for each (16 hex digits). Folders that hold the same
        give the same.
        """
        model, trusted, tracker, program = self._model
        return _digest(
            *model,
            self.device,
            self.dtype,
            self.attention,
            self.quantization,
            "trusted" if trusted else "",
            tracker,
            program,
            self.interpreter,
        )

    @property
    def _checkpoint(self) -> tuple[str, str]:
        """A folder's content, else a name and revision."""
        return (self.identity, "") if self.identity else (self.checkpoint, self.revision)

    @property
    def _model(self) -> tuple[tuple[str, str], bool, str, str]:
        """What no two workers may differ in and serve the same request."""
        tracker = self.tracker_identity or self.tracker_decoder
        return self._checkpoint, self.trust_remote_code, tracker, self.program

    def is_served_by(
        self, served: Specification, info: ModelInfo | None = None, environment: str = ""
    ) -> bool:
        """True when a worker started for ``served`` (and loaded as ``info``, by the Python of ``environment``)
        satisfies this request.

        ``auto`` here matches anything. A concrete wish matches the same wish, or what ``auto`` became in
        ``info``. So does an interpreter.
        """
        if self._model != served._model:
            return False
        if self.interpreter and self.interpreter not in (served.interpreter, environment):
            return False
        for field in _CHOSEN:
            wish, has = getattr(self, field), getattr(served, field)
            if wish in (AUTO, has):
                continue
            if has == AUTO and info is not None and _same(field, wish, getattr(info, field)):
                continue
            return False
        return self.quantization in (AUTO, served.quantization)

    def may_be_served_by(self, served: Specification, environment: str = "") -> bool:
        """True when a worker for ``served`` that is still loading may turn out to be what this asks for."""
        undecided = {field: AUTO for field in _CHOSEN if getattr(served, field) == AUTO}
        return msgspec.structs.replace(self, **undecided).is_served_by(served, environment=environment)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine loaded. ``device``, ``dtype`` and ``attention`` are concrete, never ``auto``. Part of a
    worker's record, so unknown fields are passed over as there.

    ``image_size`` is the square side, in pixels, of the frames the mask decoder sees; ``mask_size`` the
    side of the logits it answers with.
    """

    name: str
    family: str
    image_size: int
    device: str
    dtype: str
    attention: str
    parameters: int
    quantization: str = "none"
    mask_size: int = 0
    checkpoint: str = ""
    revision: str = ""
    details: dict[str, str] = {}


def _same(field: str, wish: str, has: str) -> bool:
    """``cuda`` is served by ``cuda:0``; everything else must be equal."""
    return wish == has or (field == "device" and wish == "cuda" and has == "cuda:0")


def _digest(*parts: str) -> str:
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2s(joined, digest_size=8).hexdigest()
