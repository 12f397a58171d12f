"""ComfyUI nodes will live here. There are none yet, and this package registers nothing."""
