"""What is on disk: model files, their hashes, styles."""
