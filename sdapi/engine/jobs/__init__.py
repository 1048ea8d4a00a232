"""What the engine is given to do: jobs as values, what steers and watches them while they run."""
