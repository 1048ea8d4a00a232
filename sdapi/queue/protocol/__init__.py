"""What goes over the wire: parameters, tokens and signatures, frames, attributes."""
