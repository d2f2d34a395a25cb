"""Prefetch: a message counts for all the threads that its rows need, until they are handed out."""

from uuid import UUID

from moderation.transport import QoS


class Prefetch:
    """The count of the channel that is consumed from. There is another channel after each reconnection."""

    def __init__(self) -> None:
        self._qos: QoS | None = None

    def follow(self, qos: QoS) -> None:
        """From now on this channel's messages are worked on."""
        self._qos = qos

    def handed_out(self, first: UUID) -> None:
        """The rows of the message whose first row this is are put back, or at work and counted by themselves."""
        if self._qos is not None:
            self._qos.taken(str(first))  # a message's delivery tag is its first row's id
