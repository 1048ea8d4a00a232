"""Faces: found, located, compared and cut out by providers that can be exchanged.

face.py              what a face is; the provider interfaces
pose.py, align.py    where a head looks; squares that networks want
dlib_faces.py        built in: detector, 68 points, embedding
mediapipe_faces.py   face mesh and matting from two files that set-up fetches
opencv_zoo.py        plug-ins: YuNet and SFace
insightface.py       plug-ins: SCRFD and ArcFace
bisenet.py           plug-in: the regions of a face
grabcut.py           built in: matting without a network
providers.py         which provider does what, by the files that are there
processes.py         providers in processes of their own; worker.py is what runs there
"""
