"""The package `controlnet_aux`, which has the networks of most annotators."""

import warnings
from typing import Any


def controlnet_aux() -> Any:
    """The package, imported without what it and timm say about parts that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import controlnet_aux as package  # imports torch, and takes seconds
    return package
