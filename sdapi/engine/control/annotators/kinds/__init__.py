"""The annotators themselves, those of one kind in a file.

edges.py         edges, lines and scribbles
surfaces.py      depth and normals
segments.py      segmentation in colours
openpose.py      bodies, hands and faces
dwpose.py        the same by other networks
people.py        poses in OpenPose's JSON form and as drawings
face_mesh.py     faces as MediaPipe draws them
lama.py          fills what is masked
"""
