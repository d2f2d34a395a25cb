"""What a worker's /metrics show of how many it takes on, and whether it would."""

from prometheus_client import Gauge

from worker.readiness import Readiness
from worker.turns import Turns

READY = Gauge("vetline_ready", "1 while this worker would take an item; 0 while it waits for something.")
IN_FLIGHT = Gauge("vetline_in_flight", "Images that the judge is being asked about.")
IN_FLIGHT_LIMIT = Gauge("vetline_in_flight_limit", "As many as it is asked about at once; found by itself.")
MESSAGES_LIMIT = Gauge("vetline_messages_limit", "Messages that this worker takes on at once, for now.")


def show(turns: Turns, board: Readiness) -> None:
    """Read from these whenever somebody asks."""
    READY.set_function(lambda: board.is_ready)
    IN_FLIGHT.set_function(lambda: turns.in_flight)
    IN_FLIGHT_LIMIT.set_function(lambda: turns.limit)
    MESSAGES_LIMIT.set_function(lambda: turns.most_in_hand)
