"""Providers whose networks are files below the models folder."""
