"""A person's or a scene's model from photos. Contract: portrait-pipeline 2.

trainer.py      all of it in order; what a failure is called
work_folder.py  what is kept while a training runs, so that it can go on after a crash
plans.py        how large, how long and with which words, by kind and role
study.py        face tasks: one photo looked at, cut out, compared
ranking.py      which photos serve best, and which drawn pictures
preparation.py  photos -> reference, further references, crops with captions
order.py        one training with what belongs to it
trials.py       which checkpoints look most like the person, while the training goes on
validation.py   trial pictures: the generation service draws with a checkpoint's weights
merging.py      the mean of several LoRA files
"""
