"""The gateway workers that ask, each under a number that stands above its requests' ids in the engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from appliance.inference.holding import Holding, HoldLimits
from appliance.inference.neighbours import Sent, WorkerLink
from appliance.inference.outgoing import Outgoing
from appliance.messages.engine import REQUEST_ID_BITS

MAX_WORKER_NUMBER = (1 << (63 - REQUEST_ID_BITS)) - 1


@dataclass(slots=True)
class Worker:
    """One life of a gateway worker."""

    number: int
    link: WorkerLink | None
    """None: it is gone, and its requests are about to end."""
    holding: Holding
    open: set[int] = field(default_factory=set)
    """Ids in the engine of its open requests."""


class Workers:
    """All workers that are here, and those whose requests are still about to end."""

    def __init__(self, limits: HoldLimits) -> None:
        """`limits`: of each worker."""
        self._limits = limits
        self._workers: dict[int, Worker] = {}
        self._numbers: dict[WorkerLink, int] = {}
        self._last_number = 0

    def of(self, link: WorkerLink) -> Worker:
        """The worker behind a link; a new one gets a number under which nothing is open."""
        number = self._numbers.get(link)
        if number is None:
            number = self._last_number % MAX_WORKER_NUMBER + 1
            while number in self._workers:
                number = number % MAX_WORKER_NUMBER + 1
            self._last_number = self._numbers[link] = number
            self._workers[number] = Worker(number, link, Holding(self._limits))
        return self._workers[number]

    def get(self, number: int) -> Worker | None:
        """The worker of a number, if there is one."""
        return self._workers.get(number)

    def number_of(self, link: WorkerLink) -> int:
        """0 for one that has asked for nothing."""
        return self._numbers.get(link, 0)

    def numbered(self, instance: int) -> Iterator[int]:
        """Numbers of the worker's lives that are here, the latest first: an older one may not have been seen to end yet."""
        return (number for link, number in reversed(self._numbers.items()) if link.peer_instance == instance)

    def address(self, outgoing: Outgoing) -> Sent:
        """The messages of workers that are here."""
        messages = ((self._workers.get(number), message) for number, message in outgoing.messages())
        return [
            (worker.link, message) for worker, message in messages if worker is not None and worker.link is not None
        ]

    def lose(self, link: WorkerLink) -> Worker | None:
        """This life is over; its number is not given again before `forget_if_done`."""
        number = self._numbers.pop(link, None)
        if number is None:
            return None
        self._workers[number].link = None
        return self._workers[number]

    def forget_if_done(self, worker: Worker) -> None:
        """A worker that is gone and has nothing open is forgotten."""
        if worker.link is None and not worker.open:
            self._workers.pop(worker.number, None)
