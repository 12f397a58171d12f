"""What the tests of files are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clips import pictures, write_clip
from tests.recordings import TICKS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A video of ten frames at odd times, with sound."""
    return write_clip(tmp_path / "clip.mp4", pictures(10), ticks=TICKS, sound="aac")
