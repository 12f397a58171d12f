"""Worker processes: finding, starting, watching and ending them."""
