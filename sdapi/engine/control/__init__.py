"""ControlNet and its kin: what steers a UNet from outside of it (contract: controlnet-api).

unit.py            one unit of a job, as values
control.py         what a unit does during one sampler run, whatever its kind
control_stages.py  the units of a job, called by the engine while it draws
making.py          which control a unit's module or model file asks for
control_file.py    a model file and its kind
base_model.py      what a control must know of the checkpoint
hints.py           prepared pictures as tensors
residuals.py       what several units add inside of the UNet
weighting.py       how strong each residual is
window.py          the share of the steps in which a unit acts
controlnet.py      ControlNets, with their keys in controlnet_keys.py
union.py, control_lora.py, t2i_adapter.py  other kinds of models
predicted.py       modules that change what is predicted: inpaint_only, tile_colorfix, recolor
reference.py       units without a model that borrow a picture's style
ip_adapter/        pictures as a second prompt
annotators/        networks that draw a unit's map
"""
