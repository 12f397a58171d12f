"""What ships with sa2va-host beside the library, installed as `sa2va_plugins`: the `sa2va` program and our plugins."""
