"""sdapi: the Stable Diffusion WebUI API, the EAS queue and AI portraits in one server."""

__version__ = "0.1.0"
