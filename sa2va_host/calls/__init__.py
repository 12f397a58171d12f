"""Calls to a worker, from the first message to the outcome."""
