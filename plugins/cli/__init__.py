"""The `sa2va` command: a file for each of its words, `main` for what they share, `plugin` for how it is found."""
