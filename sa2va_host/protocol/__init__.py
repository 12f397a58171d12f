"""What host and worker say to each other, and how it travels. See docs/protocol.md."""
