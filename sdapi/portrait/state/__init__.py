"""Accounts, jobs and trained models: what is remembered, and where.

records.py        the values
store.py          what a store promises
sqlite_store.py   in the database of the data directory
redis_store.py    in the Redis that several servers share; its Lua beside it
"""
