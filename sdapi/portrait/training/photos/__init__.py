"""Photos of a person or a scene, made what is trained on.

study.py        face tasks: one photo looked at, cut out, compared
preparation.py  photos -> reference, further references, crops with captions
"""
