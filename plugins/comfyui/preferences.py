"""What the user set under Settings > Sa2VA in ComfyUI (`web/settings.js` declares it). Read from its files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import folder_paths

OLD_NAMES = "Sa2VA.OldNames"
"""Whether the nodes of alexjx/ComfyUI-Sa2VA-XJ and adambarbato/ComfyUI-Sa2VA are offered: their workflows load then."""

_log = logging.getLogger(__name__)


def is_on(setting: str) -> bool:
    """Whether any user of this ComfyUI has switched it on; false where the settings cannot be read."""
    return any(_read(file).get(setting) is True for file in _settings_files())


def _settings_files() -> list[Path]:
    """`comfy.settings.json` of each user; with a single one that is `default`."""
    return sorted(Path(folder_paths.get_user_directory()).glob("*/comfy.settings.json"))


def _read(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("ComfyUI's settings in %s cannot be read: %s", file, error)
        return {}
    return content if isinstance(content, dict) else {}
