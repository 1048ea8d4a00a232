"""Faces: found, located, compared and cut out by providers that can be exchanged.

face.py              what a face is; the provider interfaces
pose.py, align.py    where a head looks; squares that networks want
providers.py         which provider does what, by the files that are there
dlib_faces.py        built in: detector, 68 points, embedding
grabcut.py           built in: matting without a network
plug_ins/            providers whose networks are files: of MediaPipe, OpenCV, InsightFace
files.py             the two of these files that set-up fetches
processes.py         providers in processes of their own; worker.py is what runs there
"""
