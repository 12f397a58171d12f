"""Which engine a checkpoint gets, and that the choice survives what folders hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.specification import Specification
from sa2va_worker.extensions import PluginEngine


@pytest.mark.parametrize("config", ["[" * 100_000, "{", "[1]", "\udcff"])
def test_a_configuration_that_cannot_be_read_is_refused_by_our_own_engine(
    tmp_path: Path, config: str
) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelLoadFailed, match=r"config\.json (cannot be read|holds no JSON object)"):
        list(PluginEngine().load(Specification(checkpoint=str(tmp_path), device="cpu")))
