"""Requests -> jobs: names, numbers and texts resolved against what this server has."""
