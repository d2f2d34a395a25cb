"""Resolves names to addresses, with a deadline that the C library does not offer."""

import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from moderation.errors import HostUnavailable, NotFound

Resolve = Callable[[str, int, float], list[str]]  # host, port, timeout in seconds -> addresses

_NO_SUCH_NAME = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
)


class Resolver:
    """getaddrinfo on a few threads of its own.

    A lookup cannot be cancelled; one that hangs keeps its thread, and the others go on. The threads are
    daemons, so that a hanging name server never keeps a worker from ending.
    """

    def __init__(self, threads: int = 16, look_up: Callable[[str, int], list[str]] | None = None) -> None:
        """look_up: what blocks; getaddrinfo by default."""
        self._look_up = look_up or _look_up
        self._max_threads = threads
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[tuple[Future[list[str]], str, int] | None] = queue.SimpleQueue()

    def resolve(self, host: str, port: int, timeout_s: float) -> list[str]:
        """All addresses of a name, in the order to try. Raises NotFound, HostUnavailable."""
        answer: Future[list[str]] = Future()
        self._start_one_if_all_are_busy()
        self._questions.put((answer, host, port))
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            answer.cancel()
            raise HostUnavailable(f"the name {host} did not resolve within {timeout_s:.1f} s") from None
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                raise NotFound(f"there is no host named {host}") from None
            raise HostUnavailable(f"the name {host} did not resolve for now") from None
        except (OSError, UnicodeError):
            raise HostUnavailable(f"the name {host} did not resolve for now") from None

    def close(self) -> None:
        with self._lock:
            for _ in self._threads:
                self._questions.put(None)
            self._threads = []

    def _start_one_if_all_are_busy(self) -> None:
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if len(self._threads) < self._max_threads:
                thread = threading.Thread(target=self._serve, name="resolver", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self) -> None:
        while (asked := self._questions.get()) is not None:
            answer, host, port = asked
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._look_up(host, port))
                except Exception as error:  # noqa: BLE001 - handed to the thread that asked
                    answer.set_exception(error)
            self._idle.release()


def _look_up(host: str, port: int) -> list[str]:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in addresses))
