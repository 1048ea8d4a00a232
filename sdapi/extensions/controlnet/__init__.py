"""ControlNet: `alwayson_scripts.controlnet` and `/controlnet/*` (contract: controlnet-api)."""
