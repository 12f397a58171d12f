"""The plugins' side: hooks, the manager, and mask processors. See docs/plugins.md."""
