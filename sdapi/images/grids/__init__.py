"""Several pictures in one, with labels around them."""
