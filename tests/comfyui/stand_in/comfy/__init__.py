"""As much of ComfyUI as the node pack touches."""
