"""Guarded download of what callers name by URL."""
