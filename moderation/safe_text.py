"""Text that models, uploaders and clients wrote, made safe to show: on a terminal, in a spreadsheet, in HTML.

On a terminal an escape sequence clears the screen, sets a title or writes over the line before, and a bidirectional
override shows a line in another order than it has. Both are made visible here and taken out nowhere: what was written
can still be told.
"""

import html
import re

# Control characters; what overrides the direction of text; separators of lines that no terminal shows as such; tags,
# which nobody sees; halves of pairs. Joiners stay: scripts and emoji are written with them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# A cell that starts so is a formula to Excel, LibreOffice and Google Sheets, also after a tab or a line break. The last
# four are full-width.
_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_QUOTE = "'"


def for_terminal(text: str, *, lines: bool = False) -> str:
    r"""What could command a terminal, as an escape that is read: \x1b, \u202e. Twice is as once.

    lines: line breaks and tabs stay, for text that has several lines of its own; a value in a line keeps neither.
    """
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escaped, text)


def json_for_terminal(text: str) -> str:
    r"""The same for JSON that is written already: it stays the same JSON, with \u009b in place of the character."""
    return _UNSAFE_IN_LINES.sub(lambda match: _json_escape(match[0]), text)


def csv_cell(text: str) -> str:
    """With an apostrophe before what a spreadsheet would run, and before an apostrophe: `csv_text` takes it away."""
    return _QUOTE + text if text and (text[0] in _FORMULA or text[0] == _QUOTE) else text


def csv_text(cell: str) -> str:
    """What `csv_cell` was given: the cell without its first apostrophe, if it begins with one."""
    return cell.removeprefix(_QUOTE)


def for_html(text: str) -> str:
    """Escaped for an element or a quoted attribute, with what could turn its direction visible."""
    return html.escape(for_terminal(text, lines=True))


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))
