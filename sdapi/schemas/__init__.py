"""Wire models: what clients send and get. Nothing here acts."""
