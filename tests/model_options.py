"""What stands in ComfyUI's node Model Options until somebody changes it."""

from __future__ import annotations

from typing import Any

UNCHANGED: dict[str, Any] = {
    "quantization": "none",
    "attention": "auto",
    "dtype": "auto",
    "device": "auto",
    "keep_alive": "as set",
    "minutes": 5.0,
    "worker_python": "",
    "max_new_tokens": 2048,
    "do_sample": False,
    "temperature": 1.0,
    "top_p": 1.0,
    "seed": 0,
}
"""Those that every workflow has; the others are optional."""
