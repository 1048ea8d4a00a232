"""Infotext: the text that tells how a picture was made, written into it and read back from it.

text.py      fields -> text, and the quoting of values
parse.py     text -> fields, with the defaults and the repairs that readers expect
mapping.py   fields -> request fields and option overrides
"""

from sdapi.infotext.mapping import Kind, SamplerResolver, option_overrides, request_fields
from sdapi.infotext.parse import StyleExtractor, parse
from sdapi.infotext.text import build, quote, unquote

__all__ = [
    "Kind",
    "SamplerResolver",
    "StyleExtractor",
    "build",
    "option_overrides",
    "parse",
    "quote",
    "request_fields",
    "unquote",
]
