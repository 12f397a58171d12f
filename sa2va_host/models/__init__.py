"""Which models there are: on this machine, on the hub, by default."""
