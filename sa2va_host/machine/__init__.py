"""What this machine has: processes, interpreters, installed distributions, NVIDIA's driver."""
