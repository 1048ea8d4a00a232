"""The options of a running server: what holds, what is shown, and what a request may change."""
