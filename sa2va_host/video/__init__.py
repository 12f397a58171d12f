"""Videos in: reading them, choosing their key frames, following what is in them."""
