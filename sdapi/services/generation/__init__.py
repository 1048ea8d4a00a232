"""txt2img and img2img, from request to answer."""
