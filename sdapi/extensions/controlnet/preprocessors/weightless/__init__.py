"""Preprocessors that need no weights: bytes [H, W, 3], red first, to bytes of the same form."""
