"""The answer made of a script's pictures (contract: webui-api 6.3, webui-scripts 1.3)."""

from typing import Any

from sdapi import images as codecs
from sdapi.options import Options
from sdapi.services.generation.order import Order
from sdapi.services.generation.saving.output_folders import OutputFolders
from sdapi.services.scripts.script import ScriptResult


def script_answer(
    order: Order, result: ScriptResult, folders: OutputFolders, server_options: Options
) -> dict[str, Any]:
    """Write a script's files if the request asks for it, and make the answer. Blocks."""
    request, options = order.request, order.options
    if request.save_images and result.info is not None:
        for each in result.files:
            if options.flag("grid_save" if each.is_grid else "samples_save"):
                folders.save_script_file(order.kind, each, result.info)
    encoding = server_options.overlay({"enable_pnginfo": options.flag("enable_pnginfo")})
    fmt = server_options.text("samples_format") or "png"
    images = [
        codecs.to_base64(codecs.encode(each.image, fmt, each.infotext, encoding))
        for each in (result.pictures if request.send_images else ())
    ]
    info = "{}"
    if result.info is not None:
        info = result.info.to_json(
            list(result.infotexts), result.index_of_first_image, result.changes
        )
    return {"images": images, "info": info}
