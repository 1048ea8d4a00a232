"""Results -> answers: the webui's and URL mode's."""
