"""What is done to a face once it is drawn: colour, make-up, skin, sharpness."""
