"""Accounts, jobs and trained models: what is remembered, and where.

records.py            the values
store.py              what a store promises
sqlite_store.py       in the database of the data directory
sqlite_connection.py  how that is read and written, off the event loop
redis_store.py        in the Redis that several servers share; its Lua beside it
"""
