"""Fields to infotext, and the quoting both directions share."""

import json
from collections.abc import Sequence

#: Begins the line, and the lines after it, that hold the negative prompt.
NEGATIVE_MARK = "Negative prompt:"


def quote(value: object) -> str:
    """A value as it stands in an infotext: JSON text where plain text would be read wrongly."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",\n:") else text


def unquote(text: str) -> str:
    """The value behind a quoted text; a text that is not quoted, or badly, stays as it is."""
    if len(text) < 2 or not (text[0] == text[-1] == '"'):
        return text
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def build(fields: Sequence[tuple[str, object]], prompt: str, negative: str) -> str:
    """The infotext of a picture: prompt, negative prompt, then `Key: value, …` in the order given.

    Null values are left out; a value that equals its key prints the key alone.
    """
    pairs = ", ".join(
        key if key == value else f"{key}: {quote(value)}"
        for key, value in fields
        if value is not None
    )
    negative_line = f"\n{NEGATIVE_MARK} {negative}" if negative else ""
    return f"{prompt}{negative_line}\n{pairs}".strip()
