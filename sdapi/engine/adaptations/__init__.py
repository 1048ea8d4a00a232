"""What a job changes in its models while it runs, and puts back exactly: padding, attention.

circular.py       tiling pictures
token_merging.py  fewer tokens in self-attention
hypertile.py      self-attention in tiles
upcast.py         attention in float32
sampling_run.py   all that act on a sampler run
"""
