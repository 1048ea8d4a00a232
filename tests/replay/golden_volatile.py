"""Places in recorded answers that cannot be the same twice, or hold prose of the webui."""

import re

#: cases -> places whose values are not compared, such as `body.a[0].b`; regular expressions
_PLACES: dict[str, tuple[str, ...]] = {
    # prose of the webui's settings page; ours says something else in its place
    r".*options.*|opt_get_.*": (r"body\.\w+_explanation", r"body\.settings_in_ui"),
    # a heading among a script's arguments is prose, too
    # and SD upscale offers the upscalers that can run, not those that could be downloaded
    r".*script_info": (r"body\[\d+\]\.args\[0\]\.value\Z", r"body\[13\]\.args\[2\]\.choices"),
    r"get_memory": (r"body\.ram\..*", r"body\.cuda\..*"),
    r"wui_getinternal_profile_startup": (r"body\.total", r"body\.records.*"),
    r"wui_getapp_id": (r"body\.app_id",),
    r".*progress.*": (r"body\.state\.job_timestamp", r"body\.eta_relative", r"body\.eta"),
    # the page's own mark-up
    r".*docs": (r"body",),
    r".*single_card.*": (r"body\.html",),
    # the recorded server's own port
    r".*cmd_flags": (r"body\.port",),
}


def is_volatile(case: str, place: str) -> bool:
    """Whether the value at a place of a case's answer is not to be compared."""
    return any(
        re.fullmatch(pattern, place)
        for name, patterns in _PLACES.items()
        if re.fullmatch(name, case)
        for pattern in patterns
    )
