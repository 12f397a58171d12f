"""Code that names CUDA lands on the device that there is; here that is the `meta` device, which every PyTorch has."""

from __future__ import annotations

import threading

import pytest
import torch

from sa2va_worker.own_code.without_cuda import placed

META = torch.device("meta")


def test_every_way_of_naming_cuda_is_led_elsewhere() -> None:
    here = torch.zeros(2)
    with placed(META):
        found = [
            here.cuda(),
            here.cuda(non_blocking=True),
            here.to("cuda"),
            here.to(torch.device("cuda:1"), torch.float16),
            here.to(device="cuda"),
            torch.ones(3, device="cuda"),
            torch.arange(4, device=torch.device("cuda")),
            torch.zeros_like(here, device="cuda:0"),
            torch.nn.Linear(2, 2).cuda().weight,
        ]
        assert {each.device.type for each in found} == {"meta"}
        assert here.to(torch.float16).device.type == torch.ones(1, device="cpu").device.type == "cpu"


def test_it_ends_with_its_block_and_holds_on_its_thread_alone() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, so nothing fails without it")
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            torch.zeros(2).cuda()
        except (RuntimeError, AssertionError) as error:
            failed.append(error)

    with placed(META):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    elsewhere()
    assert len(failed) == 2
