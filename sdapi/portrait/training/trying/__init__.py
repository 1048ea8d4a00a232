"""Which steps of a training draw the person best, and what is made of them.

trials.py      which checkpoints look most like the person, while the training goes on
validation.py  trial pictures: the generation service draws with a checkpoint's weights
merging.py     the mean of several LoRA files
"""
