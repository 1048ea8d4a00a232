"""The server itself: its description, its health, its memory and its end."""
