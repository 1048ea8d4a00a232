"""Networks that change a checkpoint for a while: LoRA and its kin, hypernetworks, embeddings."""
