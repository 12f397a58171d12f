"""The mask processor `vitmatte`: soft edges, hair and glass. Importing this loads nothing but the registration."""

from __future__ import annotations

from collections.abc import Callable

from sa2va_host.errors import ConfigError
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.plugins.hookspecs import MaskProcessor, Process, hookimpl


@hookimpl
def register_mask_processors(register: Callable[[MaskProcessor], None]) -> None:
    """Called by the plugin manager."""
    register(
        MaskProcessor(
            name="vitmatte",
            summary="soft edges, hair and glass, by ViTMatte",
            make=_make,
            options={
                "model": "hustvl/vitmatte-small-composition-1k",
                "erode": 6.0,
                "dilate": 6.0,
                "black_point": 0.15,
                "white_point": 0.99,
                "max_megapixels": 2.0,
            },
            in_worker=True,
        )
    )


def _make(device: str) -> Process:
    try:
        from .matte import VitMatte
    except ImportError as error:
        raise ConfigError(
            f"ViTMatte cannot run in this worker: {error}.", advice=f"Run: {sa2va_command('setup')}"
        ) from error
    return VitMatte(device)
