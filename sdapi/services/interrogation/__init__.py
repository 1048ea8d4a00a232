"""Descriptions of pictures: the models that make them, and whose turn it is."""
