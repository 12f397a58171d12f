"""How far loading raises a worker's memory above an idle one's. Linux only.

The checkpoint is made for it, 1 GB in bfloat16: the bundled model with a deeper and wider language model of noise. Each
precision is loaded in a process of its own, which has imported what a worker imports. What counts is the peak of its
resident memory, the pages of the mapped file among it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .figures import Figure, NotMeasured, Plan
from .machine import status

AIM = 1.3
"""Times the checkpoint's size."""
PRECISIONS = ("none", "8bit", "4bit")
LAYERS = 64
WIDTH = 20_480
"""Of each layer's MLP; the bundled model's other sizes stay."""


def measure(plan: Plan) -> list[Figure]:
    """The rise by precision, as a multiple of the checkpoint's size. It is one number: a process is measured once."""
    del plan
    if sys.platform != "linux":
        raise NotMeasured("it reads /proc, which Linux has.")
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as folder:
        size = write_checkpoint(Path(folder))
        rises = {bits: _measure(folder, bits, "bfloat16") for bits in PRECISIONS}
    return [
        Figure(
            f"peak above idle, quantization {bits}, against {size / 1e9:.2f} GB", (rise / size,), AIM, "times"
        )
        for bits, rise in rises.items()
    ]


def main() -> None:
    """Load one checkpoint here, and print the rise in bytes."""
    folder, bits, dtype = sys.argv[1:]
    print(_rise(folder, bits, dtype))


def write_checkpoint(folder: Path) -> int:
    """Write the checkpoint; returns its bytes."""
    import torch
    from safetensors.torch import load_file, save_file

    from sa2va_worker.models.checkpoint import BUNDLED

    bundled = BUNDLED / "sa2va-tiny"
    weights = "model.safetensors"
    shutil.copytree(bundled, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(weights))
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    first, hidden = text["num_hidden_layers"], text["hidden_size"]
    text |= {"num_hidden_layers": LAYERS, "intermediate_size": WIDTH}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: values.to(torch.bfloat16) for name, values in load_file(bundled / weights).items()}
    prefix = "model.model.language_model.layers."
    wide = torch.randn(WIDTH, hidden, dtype=torch.bfloat16) / 100
    mlp = {"mlp.gate_proj.weight": wide, "mlp.up_proj.weight": wide, "mlp.down_proj.weight": wide.T}
    for name, values in list(tensors.items()):
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            for layer in range(int(number), LAYERS, first):
                tensors[f"{prefix}{layer}.{rest}"] = mlp.get(rest, values).clone(
                    memory_format=torch.contiguous_format
                )
    save_file(tensors, folder / weights)
    return (folder / weights).stat().st_size


def _measure(folder: str, bits: str, dtype: str) -> int:
    command = [sys.executable, "-m", "benchmarks.load_memory", folder, bits, dtype]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _rise(folder: str, bits: str, dtype: str) -> int:
    """Load here; bytes between resident memory before and its peak meanwhile."""
    from sa2va_host.protocol.specification import Specification
    from sa2va_worker.engine import Sa2VAEngine

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    idle = status("VmRSS")
    for _ in Sa2VAEngine().load(
        Specification(checkpoint=folder, device="cpu", dtype=dtype, quantization=bits)
    ):
        pass
    return status("VmHWM") - idle


if __name__ == "__main__":
    main()
