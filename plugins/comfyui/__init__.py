"""Nodes for ComfyUI, in its V3 schema. The repository, cloned into `custom_nodes`, is the node pack.

One node or one concern of ComfyUI's per file: `segment_image`, `segment_video`, `track_masks`, `refine_edges`, `chat`,
`model_options`, `unload` and `legacy` hold nodes; `clients`, `model_list`, `watch`, `memory`, `connections`, `tensors`,
`found_objects`, `preview` and `preferences` what they share. Importing this package loads none of them, and nothing
here starts a process before a node runs.
"""
