"""AI portrait: photos checked, people trained, portraits made. See docs/portrait.md.

An extension that uses only what any other could.

portrait.py     everything of it in one server, wired together
surfaces/       who calls: the signed REST API, and three services of the queue
wire/           what they send and get
checking.py     is each photo a picture of one face, and do all show one person?
training/       a person's or a scene's model from photos; job_runner.py runs REST trainings
creation/       a template's face becomes a trained person's
handlers.py     what trains and creates, as the surfaces see it
faces/          who finds and measures faces, in processes of their own
pixels/         what is done to pictures
base/           the checkpoints that portraits are trained on and drawn with
models/         files of trained models; state/ what is remembered of accounts, jobs and models
faults.py       every error that a caller may be told
commands.py     `launch.py portrait-account`
"""
