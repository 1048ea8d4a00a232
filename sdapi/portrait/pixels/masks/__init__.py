"""Where things are: the outline and parts of a face, its skin, and what drawing keeps."""
