"""Celery, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# Celery is not installed where this project is checked.

import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

from celery import Celery
from celery.platforms import SecurityWarning
from celery.worker import state

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_threads import BlockingPeer, main
from drive.work import Payload, Work

warnings.simplefilter("ignore", SecurityWarning)  # a container's only user may be root


class CeleryPeer(BlockingPeer):
    name = "Celery"
    packages = ("celery", "kombu")
    settings = (
        "hiredis, a pool of threads as asked for, faster here than gevent; 128 prefetched for each, as its page "
        "on optimizing says for short tasks; ignore_result, no gossip, no mingle, no heartbeat; one thread publishes"
    )
    guarantees = (
        "Acknowledged before the task runs (acks_late is off): what a dead worker had begun is lost, and what it had "
        "only fetched comes back after the visibility timeout of 3600 s. No retry of an exception by default."
    )

    def __init__(self, url: str, concurrency: int, work: Work) -> None:
        super().__init__(url, concurrency, work)
        self._app = Celery("bench", broker=url)
        # User guide, Optimizing, Prefetch limits: "Values like 50 or 150 might make sense [...] Say 64, or 128".
        self._app.conf.worker_prefetch_multiplier = 128

        @self._app.task(name="handle", ignore_result=True)  # User guide, Tasks, Tips: ignore results you don't want
        def handle(lead: Payload) -> None:
            self.work.run_blocking(lead["leadId"])

        self._handle = handle

    def publish(self, lead: Payload) -> None:
        self._handle.delay(lead)

    @contextmanager
    def working(self):
        worker = self._app.Worker(
            pool="threads",
            concurrency=self.concurrency,
            loglevel="ERROR",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        running = threading.Thread(target=worker.start, daemon=True)
        running.start()
        try:
            yield
        finally:
            state.should_stop = 0  # a warm shutdown, as on SIGTERM
            running.join(10)


if __name__ == "__main__":
    main(CeleryPeer)
