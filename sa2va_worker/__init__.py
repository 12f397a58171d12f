"""The process that owns the model. Nothing outside it imports this package; the host starts it by name."""
