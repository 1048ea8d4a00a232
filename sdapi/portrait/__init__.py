"""AI portrait: photos checked, a person's model trained, portraits made from a template.

An extension that uses only what any other could. Two surfaces on one engine: the queue's services
(`queue_services`) and the signed REST API of the AI-service SDKs (`rest`).
"""
