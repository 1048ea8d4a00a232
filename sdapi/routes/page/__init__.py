"""The page at `/`, and what programs ask of the webui's; not with `--nowebui`."""
