"""Whether there is room is known before memory is taken; and what would fit is said."""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from transformers.initialization import no_init_weights

from sa2va_host.errors import OutOfMemory
from sa2va_worker.models import checkpoint
from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.models.language import Language
from sa2va_worker.models.sa2va import Sa2VA, need_of
from sa2va_worker.placement import PROCESSOR, Need, check_room, free_memory
from sa2va_worker.steps import ChatRequest
from tests.worker.conftest import Heard, load_engine

GB = 10**9
GPU, OTHER = torch.device("cuda", 0), torch.device("cuda", 1)
QWEN3_VL_4B = {
    "model_type": "sa2va_chat",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": 2560,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}


@pytest.fixture(scope="module")
def model() -> Sa2VA:
    """Sa2VA-Qwen3-VL-4B without memory; its embeddings are tied."""
    with no_init_weights(), torch.device("meta"):
        model = Sa2VA(QWEN3_VL_4B)
    language = model.language.model
    language.lm_head.weight = language.get_input_embeddings().weight
    return model


@pytest.fixture(scope="module")
def need(model: Sa2VA) -> Need:
    return need_of(model)


def places(
    model: Sa2VA,
    free: Mapping[torch.device, float],
    devices: Sequence[torch.device],
    dtype: torch.dtype = torch.bfloat16,
    bits: str = "none",
) -> tuple[torch.device, ...]:
    """What `check_room` answers where so many GB are free."""
    layers = model.language.model.get_decoder().layers
    name, need = "Sa2VA-Qwen3-VL-4B", need_of(model)
    return check_room(name, need, layers, devices, dtype, bits, lambda device: round(free[device] * GB))


def test_the_need_is_about_what_upstream_publishes(need: Need) -> None:
    assert need.parameters == pytest.approx(4.67e9, rel=0.01)
    assert need.bytes(torch.bfloat16) == pytest.approx(10 * GB, rel=0.1)
    assert need.bytes(torch.bfloat16, "8bit") == pytest.approx(6 * GB, rel=0.15)
    assert need.bytes(torch.bfloat16, "4bit") < 5.5 * GB


@pytest.mark.parametrize(
    ("free", "dtype", "bits", "said"),
    [
        (
            7.6,
            torch.bfloat16,
            "none",
            (
                r"^Sa2VA-Qwen3-VL-4B needs about 10\.\d GB in bfloat16 and cuda:0 has 7\.6 GB free\. "
                r"Use --quantization 8bit \(about 6\.\d GB\)\.$"
            ),
        ),
        (5.5, torch.bfloat16, "none", r"Use --quantization 4bit \(about \d\.\d GB\)\.$"),
        (5.5, torch.bfloat16, "8bit", r"in 8bit with bfloat16 .* Use --quantization 4bit \("),
        (12, torch.float32, "none", r"in float32 .* Use --dtype bfloat16 \(about 10\.\d GB\)\.$"),
        (3, torch.bfloat16, "none", r"Use a smaller checkpoint, or free memory"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_precision_that_does(
    model: Sa2VA, free: float, dtype: torch.dtype, bits: str, said: str
) -> None:
    with pytest.raises(OutOfMemory, match=said):
        places(model, {GPU: free, PROCESSOR: 0}, [GPU], dtype, bits)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (7.6, r"Use --quantization 8bit \(about 6\.\d GB\), or --device offload, which is slower\.$"),
        (4, r"Use --device offload, which is slower\.$"),
        (2, r"Use a smaller checkpoint, or free memory"),
    ],
)
def test_a_gpu_beside_much_memory_is_told_to_offload(model: Sa2VA, free: float, said: str) -> None:
    with pytest.raises(OutOfMemory, match=said):
        places(model, {GPU: free, PROCESSOR: 64}, [GPU])


def test_a_model_that_fits_goes_onto_one_device(model: Sa2VA) -> None:
    assert places(model, {GPU: 12}, [GPU]) == (GPU,) * 36


def test_a_model_that_fits_nowhere_else_is_spread_over_two(model: Sa2VA) -> None:
    shares = Counter(places(model, {GPU: 7, OTHER: 7}, [GPU, OTHER]))
    assert shares[GPU] + shares[OTHER] == 36
    assert abs(shares[GPU] - shares[OTHER]) <= 4
    kept = Counter(places(model, {GPU: 7, PROCESSOR: 64}, [GPU, PROCESSOR]))
    assert kept[GPU] + kept[PROCESSOR] == 36
    assert min(kept.values()) > 12


def test_devices_without_room_together_are_named(model: Sa2VA) -> None:
    said = (
        r"needs about 10\.\d GB, of which \d\.\d GB on cuda:0, in bfloat16 and cuda:0 has 4\.0 GB free,"
        r" cuda:1 has 5\.0 GB free\. Use --quantization 8bit \("
    )
    with pytest.raises(OutOfMemory, match=said):
        places(model, {GPU: 4, OTHER: 5}, [GPU, OTHER])


def test_a_processor_has_what_the_system_has_free() -> None:
    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """The bundled model, in 16 bit, with a vocabulary of three quarters of this machine's memory; its file is as large
    and takes no disk.
    """
    folder = Path(shutil.copytree(BUNDLED / "sa2va-tiny", tmp_path / "Sa2VA-Huge"))
    config = json.loads((folder / "config.json").read_text())
    text, file = config["text_config"], folder / "model.safetensors"
    with file.open("rb") as weights:
        header = json.loads(weights.read(struct.unpack("<Q", weights.read(8))[0]))
    header.pop("__metadata__", None)
    tables = [tensor for tensor in header.values() if tensor["shape"][0] == text["vocab_size"]]
    rows = int(0.75 * psutil.virtual_memory().total / len(tables) / 2 / text["hidden_size"])
    for tensor in tables:
        tensor["shape"][0] = rows
    end = 0
    for tensor in header.values():
        size = math.prod(tensor["shape"]) * {"F16": 2, "F32": 4}[tensor["dtype"]]
        tensor["data_offsets"] = [end, end + size]
        end += size
    packed = json.dumps(header).encode()
    with file.open("wb") as weights:
        weights.write(struct.pack("<Q", len(packed)) + packed)
        weights.truncate(8 + len(packed) + end)
    text["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_larger_than_memory_is_refused_before_any_is_taken(huge: Path) -> None:
    with pytest.raises(OutOfMemory, match=r"^Sa2VA-Huge needs about \d+\.\d GB in float32 and cpu has"):
        load_engine(huge)


def test_a_call_that_runs_out_of_memory_fails_with_advice_and_the_next_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = load_engine(BUNDLED / "sa2va-tiny")
    wanted = Heard(list(engine.chat(ChatRequest("hello")))).answer.text

    def hungry(*_: object, **__: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(Language, "logits", hungry)
        with pytest.raises(OutOfMemory, match=r"Use --dtype bfloat16 .* or show fewer or smaller pictures"):
            list(engine.chat(ChatRequest("hello")))
    assert Heard(list(engine.chat(ChatRequest("hello")))).answer.text == wanted


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_what_was_read_of_a_file_does_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAPPED_BYTES", 2**20)
    bundled = checkpoint.Checkpoint(BUNDLED / "sa2va-tiny")
    names, most = set(), 0
    for name, values in bundled.tensors():
        values.sum()  # so that it is read
        names.add(name)
        if len(names) % 50 == 0:  # the system takes its time to tell
            most = max(most, resident(bundled.files[0]))
    assert names == bundled.names
    assert 0 < most < bundled.size / 2


def resident(file: Path) -> int:
    """Bytes of a mapped file that count as this process's memory (proc(5), smaps)."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            ours = line.endswith(str(file))
        elif ours and first == "Rss:":
            found += int(line.split()[1]) * 1024
    return found
