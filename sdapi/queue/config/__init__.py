"""Services: what one is, and the JSON files that name them."""
