"""Text encoders, and what they make of chunks of tokens."""
