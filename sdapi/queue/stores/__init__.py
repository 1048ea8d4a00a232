"""Where queues are kept: one protocol, on SQLite and on Redis."""
