"""The peers do what they are compared for: a picture leaves the process, and a mask comes back."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.figures import NotMeasured
from benchmarks.pictures import noise


def test_queues_bring_back_a_mask_of_our_own():
    with peers.torch_queues() as call:
        assert call(None) is None
        mask = call(noise((30, 40)))
        assert mask is not None
        assert mask.shape == peers.MASK
        assert mask.dtype == np.float32
        again = call(noise((30, 40)).astype(np.float32))
        assert again is not None
        assert not np.shares_memory(mask, again)


def test_a_peer_that_is_not_installed_is_not_measured(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotMeasured, match="pyisolate is not installed"), peers.pyisolate_fresh():
        pass
