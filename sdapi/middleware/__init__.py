"""What every request passes through, outermost first: log, CORS, gate, body limit.

Plain ASGI, so that large answers are not copied. Queues take many small requests, each of which
passes all but the gate: what is done here for every request is counted in microseconds.
"""
