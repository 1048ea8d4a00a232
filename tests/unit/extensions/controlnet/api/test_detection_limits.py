"""How many requests for maps are let in."""

from contextlib import ExitStack

import pytest

from sdapi.errors import QueueFull
from sdapi.extensions.controlnet.api.detection_limits import DetectionLimits


def test_a_request_too_many_is_refused_until_another_has_ended():
    limits = DetectionLimits()
    with ExitStack() as others:
        for _ in range(32):
            others.enter_context(limits.place())
        with pytest.raises(QueueFull, match="32 requests"), limits.place():
            pass
    with limits.place():
        pass
