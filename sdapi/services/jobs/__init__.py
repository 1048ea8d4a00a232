"""Tasks, their order, and the workers that do them."""
