"""Where results go and large files come from: local disk and object stores, one road for both."""
