"""Checkpoints that bring their own code: community fine-tunes that no family of `sa2va_worker.models` knows.

Imports none of our own models, so it also runs where transformers is as old as that code wants it (4.57).
"""
