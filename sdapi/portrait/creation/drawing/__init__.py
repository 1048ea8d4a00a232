"""What a portrait is drawn with: what one pass asks, and who draws it.

passes.py, prompts.py, units.py    what a pass is asked: figures, words, control units
bases.py                           the checkpoints
control_kinds.py                   which of them a control model is for
webui.py                           a pass as a request of the webui API
in_process.py, remote.py           who sends it: to this server's own service, or by HTTP
address.py                         which of the two
"""
