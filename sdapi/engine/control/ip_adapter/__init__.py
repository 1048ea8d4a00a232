"""IP-Adapter (Ye et al. 2023): pictures as a second prompt (contract: controlnet-api 8).

adapter_file.py   the weights of a file: a projection, and keys and values for each layer
projection.py     what makes tokens of a picture's embedding
image_encoder.py  CLIP's image encoders
adapter.py        an adapter in memory, and what a unit with one does
attention.py      the second attention beside each of a UNet's cross-attentions
"""
