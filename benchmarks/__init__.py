"""How long things take, measured from outside: `python -m benchmarks`."""
