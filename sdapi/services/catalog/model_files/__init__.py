"""Model files as files: found, hashed, and looked into without torch."""
