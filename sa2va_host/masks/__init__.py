"""From logits to masks worth keeping."""
