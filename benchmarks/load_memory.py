"""How far loading raises a worker's memory above an idle one's: `python -m benchmarks.load_memory`. Linux only.

The checkpoint is made for it, 1 GB in bfloat16: the bundled model with a deeper and wider language model of noise. Each
precision is loaded in a process of its own, which has imported what a worker imports. What counts is the peak of its
resident memory, the pages of the mapped file among it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

AIM = 1.3
"""Times the checkpoint's size."""
PRECISIONS = ("none", "8bit", "4bit")
LAYERS = 64
WIDTH = 20_480
"""Of each layer's MLP; the bundled model's other sizes stay."""


def main() -> int:
    """Print a Markdown table; returns 1 when a precision misses its aim."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_memory", description=__doc__)
    parser.add_argument("--dtype", default="bfloat16", help="what is not quantized (default: %(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "BITS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, bits = arguments.measure
        print(_rise(folder, bits, arguments.dtype))
        return 0
    with tempfile.TemporaryDirectory(prefix="sa2va-benchmark-") as folder:
        size = write_checkpoint(Path(folder))
        rises = {bits: _measure(folder, bits, arguments.dtype) for bits in PRECISIONS}
    print(f"| quantization | memory above idle | of the checkpoint's {size / 1e9:.2f} GB | aim |")
    print("|---|---:|---:|---:|")
    for bits, rise in rises.items():
        print(f"| {bits} | {rise / 1e9:.2f} GB | {rise / size:.2f} | {AIM} |")
    return 1 if max(rises.values()) > AIM * size else 0


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
    command = [sys.executable, "-m", "benchmarks.load_memory", "--dtype", dtype, "--measure", folder, bits]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _rise(folder: str, bits: str, dtype: str) -> int:
    """Load here; bytes between resident memory before and its peak meanwhile."""
    from sa2va_host.protocol.specification import Specification
    from sa2va_worker.engine import Sa2VAEngine

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    idle = _status("VmRSS")
    for _ in Sa2VAEngine().load(
        Specification(checkpoint=folder, device="cpu", dtype=dtype, quantization=bits)
    ):
        pass
    return _status("VmHWM") - idle


def _status(field: str) -> int:
    """Bytes, as `/proc/self/status` has them in kB."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
