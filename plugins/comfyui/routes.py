"""What the pack's page in ComfyUI asks the server: which settings are in force that it may show and not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server import PromptServer

from sa2va_host.config import load_settings, origins, settings_file
from sa2va_host.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp import web

PATH = "/sa2va/settings"
"""Asked by `web/settings.js`."""


def register() -> None:
    """Add the route. Called once, while ComfyUI loads the pack."""
    PromptServer.instance.routes.get(PATH)(_settings)


async def _settings(_request: web.Request) -> web.Response:
    from aiohttp import web

    try:
        trusted, origin = load_settings().trust_workflows, origins()["trust_workflows"]
    except ConfigError:  # every node says what is wrong with the file
        trusted, origin = False, "default"
    # Of a value that nobody set: where it could be.
    where = str(settings_file()) if origin == "default" else origin
    return web.json_response({"trust_workflows": trusted, "where": where})
