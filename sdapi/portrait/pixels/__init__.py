"""What is done to the pixels of a portrait beside drawing, without any network.

raster.py       OpenCV's filters with types; LAB
shape.py        the outline and the parts of a face as masks, from its landmarks
skin.py         where skin is
regions.py      the masks that drawing needs: face, its edge, what is kept
frame.py        the part of a template that is worked on, and the way back into it
warp.py         a face in another face's geometry and light; the built-in swapper
fusion.py       how much of a swapped face shows
replaced.py     one face laid over another; pose_map.py: landmarks as a pose picture
colour_shift.py, makeup.py, retouch.py, enhance.py, sharpen.py    what their names say

Pictures are RGB bytes [H, W, 3], masks floats [H, W] in 0..1. `fw` is the width of the jaw in
pixels, the unit of every radius. The algorithms' figures are those of the portrait contract,
section 8, found by trying.
"""
