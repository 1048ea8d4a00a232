"""What callers send and get, without what is done for them. Contract: portrait-api.

requests.py    what is asked for, read from a body of either surface
configure.py   `configure` of a creation: every field, its range, its default on each surface
plain_text.py  texts that become prompts, without tags
literal.py     bodies: JSON, or the Python-flavoured text of the samples
signature.py   the signature of the REST surface
jobs.py        jobs as the REST surface shows them
"""
