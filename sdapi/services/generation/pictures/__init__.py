"""The pictures that requests bring, and what becomes of those that are drawn."""
