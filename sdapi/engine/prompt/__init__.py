"""The webui's prompt language: weights, BREAK, AND, editing, alternation and extra-network tags."""
