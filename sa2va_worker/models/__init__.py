"""Sa2VA natively: a vision-language model, SAM2, and the join of the two.

`checkpoint` reads folders and `filling` puts their tensors into modules. `language` is what all language sides have in
common, `families` the table of them, `sam2` the mask side; `tracker` decides what SAM2 remembers of a video, `sa2va`
joins them. Only PyTorch, transformers' building blocks and Pillow: no sockets, no host.
"""
