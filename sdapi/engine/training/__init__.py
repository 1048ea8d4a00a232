"""LoRA training on the checkpoints that the engine draws with.

job.py              what to train: pictures, captions, how long; what a running one tells
adapters.py         peft's layers on copies of the networks that share the cached weights
examples.py         pictures -> latents; which of them, how cut and how noisy, by number and seed
objective.py        texts encoded with gradients; the loss
training_state.py   what resumes a training: adapters, optimiser, how far it is
lora_file.py        the result as kohya's programs write it
training_run.py     all of it together, one update at a time
"""
