"""Networks that turn a picture into a map, such as depth or pose (contract: controlnet-api 11).

files.py       which files each needs, and where they are looked for
auxiliary.py   the package that has most of the networks
"""
