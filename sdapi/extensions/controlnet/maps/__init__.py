"""Maps at the size of the picture that is drawn."""
