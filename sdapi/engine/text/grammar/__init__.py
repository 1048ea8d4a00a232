"""What a prompt may say: emphasis, `AND`, tags, and texts that change over the steps."""
