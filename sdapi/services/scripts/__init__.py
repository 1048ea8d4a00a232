"""Scripts: parts of a generation that extensions add, always on or chosen by a request."""
