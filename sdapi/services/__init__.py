"""Use cases: what routes call and extensions build on; they own no tensors."""
