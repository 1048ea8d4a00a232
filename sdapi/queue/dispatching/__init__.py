"""What is put is carried to inference, and the answer into the sink."""
