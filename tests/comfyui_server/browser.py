"""ComfyUI's page in a real browser: Playwright with Debian's Chromium (`apt install chromium`)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from .comfyui import ComfyUI

CHROMIUM = shutil.which("chromium") or ""


@contextlib.contextmanager
def opened_page(server: ComfyUI, *, dark: bool = True) -> Iterator[Any]:
    """The page, loaded; `page.errors` are those that it met since. Needs the package playwright and `CHROMIUM`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(
            viewport={"width": 1560, "height": 980}, color_scheme="dark" if dark else "light"
        )
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.set_default_timeout(240_000)
        page.goto(f"http://127.0.0.1:{server.port}", wait_until="domcontentloaded")
        page.wait_for_function("window.app && window.app.graph && window.app.vueAppReady")
        page.wait_for_timeout(2000)
        page.errors.clear()  # those of ComfyUI's own start
        yield page
        browser.close()
