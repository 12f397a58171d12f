"""Code that was written for CUDA, on a machine that has none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def placed(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, ``x.cuda()`` and ``device="cuda"`` mean ``device``, on this thread alone."""
    return torch.cuda.device(device) if device.type == "cuda" else OnDevice(device)


class OnDevice(TorchFunctionMode):
    """Sends to ``device`` what is sent to CUDA: by ``x.cuda()``, by ``x.to("cuda")``, or by ``device="cuda"``.

    Upstream's code has the first in its memory attention and in InternVL's prompts, and community code has all of them.
    A function mode of PyTorch sees each call before it is made, on the thread that entered it; nothing is patched. What
    asks CUDA itself something (`torch.cuda.*`) is not changed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func is torch.Tensor.cuda:
            return args[0].to(self._device)
        if func is torch.Tensor.to:
            args = (args[0], *map(self._here, args[1:]))
        named = dict(kwargs or {})
        if "device" in named:
            named["device"] = self._here(named["device"])
        return func(*args, **named)

    def _here(self, value: object) -> object:
        means_cuda = isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == "cuda"
        return self._device if means_cuda else value
