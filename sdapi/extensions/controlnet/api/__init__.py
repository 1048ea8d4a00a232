"""`/controlnet/*` (contract: controlnet-api 12)."""
