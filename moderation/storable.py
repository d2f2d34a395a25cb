"""Text that Postgres can hold: a model may well emit NUL or half of a surrogate pair."""


def storable(text: str) -> str:
    """NUL and halves of surrogate pairs are written out as escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()
