"""Prompts and the vectors they become."""
