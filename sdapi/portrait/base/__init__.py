"""The checkpoints that portraits are trained on and drawn with, and what is said to each.

checkpoints.py   which file serves each kind of portrait, its native size, its words
native_size.py   the size a checkpoint draws at, from what lies beside it
words.py         prompts as data: `words.json`, and what a checkpoint brings of its own
"""
