"""The `sa2va` command as `python -m sa2va_plugins`, for installations without scripts."""

from .command import main

raise SystemExit(main())
