"""Control models: their files, what is built of them, and what they add inside of a UNet."""
