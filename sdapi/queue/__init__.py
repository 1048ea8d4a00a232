"""The EAS asynchronous queue: its wire formats, its stores, its rules, and what feeds inference.

Knows inference only as a callable it is given, and nothing of HTTP servers.
"""
