"""Enlarging pictures: plain filters, and models of the ESRGAN family and its kin."""
