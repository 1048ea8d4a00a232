"""What is done to the pixels of a portrait beside drawing, without any network.

raster.py      OpenCV's filters with types; LAB
frame.py       the part of a template that is worked on, and the way back into it
masks/         where the face, its parts and skin are
guides/        pictures that drawing is guided by
warp.py        a face in another face's geometry and light; the built-in swapper
fusion.py      how much of a swapped face shows
retouching/    colour, make-up, skin and sharpness afterwards

Pictures are RGB bytes [H, W, 3], masks floats [H, W] in 0..1. `fw` is the width of the jaw in
pixels, the unit of every radius; a `scale` is that of the checkpoint's `Target`. The algorithms'
figures are those of the portrait contract, section 8, found by trying.
"""
