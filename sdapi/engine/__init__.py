"""Drawing: models, prompts, samplers. May import torch; knows nothing of HTTP, users or queues."""
