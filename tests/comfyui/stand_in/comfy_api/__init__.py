"""As much of ComfyUI's node API as the node pack touches."""
