"""What a server tells of itself: memory, figures, how it started, what it runs on."""
