"""ControlNet and its kin: what steers a UNet from outside of it (contract: controlnet-api).

annotators/        networks that draw a unit's map
"""
