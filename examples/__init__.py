"""How the example pictures of `sa2va demo` were made."""
