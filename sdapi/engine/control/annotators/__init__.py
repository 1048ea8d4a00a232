"""Networks that turn a picture into a map, such as depth or pose (contract: controlnet-api 11).

annotators.py    the networks of a server: loaded when asked for, one picture at a time
files.py         which files each needs, and where they are looked for
hub.py           where those are published
recipes.py       how each is loaded and how it draws
kinds/           what loads and draws them
auxiliary.py     the package that has most of the networks
"""
