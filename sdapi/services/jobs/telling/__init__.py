"""What is told of tasks: to whoever asks, to whoever waits, and to metrics."""
