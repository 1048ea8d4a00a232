"""The models of one device: cached by bytes, lent to jobs, kept small on a small GPU."""
