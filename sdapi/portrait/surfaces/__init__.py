"""The two surfaces: the signed REST API, and three services of the queue.

rest.py             what each signed call does, in the order of checks that clients rely on
routes.py           the REST surface over HTTP, and the status page
accounts.py         who calls the REST surface, and how often they may
queue_services.py   the queue's three inference programs
callers.py          the end of work for a caller who has gone
"""
