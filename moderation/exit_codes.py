"""How commands and workers exit. Scripts and supervisors read these numbers: never change one."""

FAILED = 1
MISUSE = 2  # trying again would change nothing
SOME_FAILED = 3  # some items failed
UNSAFE_FOUND = 4  # where --fail-on unsafe asked
SERVICE_DOWN = 75  # EX_TEMPFAIL: trying again may help
INTERRUPTED = 130  # 128 + SIGINT
