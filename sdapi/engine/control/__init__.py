"""ControlNet and its kin: what steers a UNet from outside of it (contract: controlnet-api).

unit.py            one unit of a job, as values
control.py         what a unit does during one sampler run, whatever its kind
control_stages.py  the units of a job, called by the engine while it draws
making.py          which controls a unit's module and model file ask for
window.py          the share of the steps in which a unit acts
hints.py, rows.py  prepared pictures, and what is told of a call's rows, as tensors
unet_layers.py     the layers of a UNet that controls reach into
models/            files of control models, and what is built of them
modules/           what modules do: inpainting, colours, references
ip_adapter/        pictures as a second prompt
annotators/        networks that draw a unit's map
"""
