"""The front ends that ship with sa2va-host, installed as `sa2va_plugins`; each package is a pluggy plugin."""
