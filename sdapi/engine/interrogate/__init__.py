"""Describing pictures with models from local files."""
