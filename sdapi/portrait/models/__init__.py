"""Files of trained models.

artefacts.py   what a model's folder holds
folders.py     where those folders are, how they come and go
removal.py     models that are to be forgotten, files and rows
"""
