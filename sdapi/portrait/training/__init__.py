"""A person's or a scene's model from photos. Contract: portrait-pipeline 2.

trainer.py         all of it in order; what a failure is called
work_folder.py     what is kept while a training runs, so that it can go on after a crash
plans.py           how large, how long and with which words, by kind and role
ranking.py         which photos serve best, and which drawn pictures
photos/            photos looked at, and made what is trained on
trying/            trial pictures, and what is made of the best steps
training_order.py  one training with what belongs to it
"""
