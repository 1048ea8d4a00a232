"""Weight files and what becomes of them: architecture, key names, components."""
