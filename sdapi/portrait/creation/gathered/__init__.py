"""What a creation works with.

person.py    who is to be seen: reference photos, LoRA, words
template.py  the picture to begin with, fetched or drawn from text
sight.py     faces of photos, remembered for the next creation
studio.py    what all stages share
"""
