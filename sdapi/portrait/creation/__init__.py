"""Creation: a template's face becomes a trained person's.

creator.py       the whole of it: from a request to a picture
gathered/        what it works with: the persons, the template, and what all stages share
one_person.py    the chain of stages for one face; group.py: for several, and the background
finish.py        what is done to the whole picture at the end
one_face.py      the face of a person's photo, cut out of it
face_tasks.py    the stages' work on pixels, as tasks for the face processes
drawing/         what a pass of drawing is asked, and who draws it
line.py          how many go on at once, and how many wait
"""
