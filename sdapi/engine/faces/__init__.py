"""Faces in pictures: found, aligned, restored by a model, and put back.

restorer.py    what a job names
detector.py    RetinaFace: where faces are, with five points each
parser.py      which pixels of an aligned face are face
alignment.py   out of the picture and back
restoring.py   all of it
"""
