"""Who did something and why, as it is kept."""

import getpass

from moderation.errors import BadSetting
from moderation.policy.text import check_text


def login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user often has no name
        raise BadSetting("who does it? your login has no name here: say --by") from None


def plain_words(option: str, text: str) -> str:
    try:
        return check_text(text.strip())
    except ValueError as exc:
        raise BadSetting(f"{option} {exc}") from None
