"""What is told of a result: its `info`, its infotexts, its times."""
