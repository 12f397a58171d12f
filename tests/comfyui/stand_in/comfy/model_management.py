"""ComfyUI's own models, and its Interrupt button."""

import torch

interrupted = False
unloads: list[str] = []


class InterruptProcessingException(Exception):
    pass


def processing_interrupted() -> bool:
    return interrupted


def throw_exception_if_processing_interrupted() -> None:
    global interrupted  # noqa: PLW0603 - as ComfyUI has it
    if interrupted:
        interrupted = False
        raise InterruptProcessingException


def unload_all_models() -> None:
    unloads.append("models")


def get_torch_device() -> torch.device:
    return torch.device("cpu")
