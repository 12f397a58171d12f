"""As much of ComfyUI's executor as the node pack touches."""
