"""Drawing: models, prompts, samplers. Everything here may import torch; nothing knows of HTTP, users or queues."""
