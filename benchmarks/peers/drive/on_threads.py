"""The same tasks for a library whose calls block: threads, or greenlets where the driver has patched them in."""

import argparse
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar

from .protocol import Done, Progress, Result, program, unheard
from .work import WARM_UP, Payload, Work, payload, percentiles

SENDERS = 50  # threads of the open loop: one that has to wait must not keep the next event from being sent


class BlockingPeer(ABC):
    """One library."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # the library first, then what its version also depends on
    settings: ClassVar[str]
    guarantees: ClassVar[str]
    at_once: ClassVar[int] = 1  # threads that publish: more of them only wait for the interpreter, and for each other

    def __init__(self, url: str, concurrency: int, work: Work) -> None:
        self.url, self.concurrency, self.work = url, concurrency, work

    @abstractmethod
    def working(self) -> AbstractContextManager[object]:
        """The library's own worker runs inside, calling `work.run_blocking` for each event."""

    @abstractmethod
    def publish(self, lead: Payload) -> None:
        """Returns when Redis has it."""


def in_threads(target: Callable[[], None], count: int) -> None:
    """Run it so many times at once. The failure of one is the failure of all, after they have ended."""
    if count == 1:
        target()
        return
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            target()
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def publish(peer: BlockingPeer, count: int, threads: int, done: Done, first: int = 0) -> Result:
    numbers, received = iter(range(first, first + count)), iter(range(1, count + 1))

    def publisher() -> None:
        for number in numbers:
            peer.publish(payload(number))
            done(next(received))

    began = time.perf_counter()
    in_threads(publisher, threads)
    return {"events": count, "seconds": time.perf_counter() - began}


def consume(peer: BlockingPeer, count: int, threads: int = 0) -> Result:
    finished = threading.Event()
    peer.work.expect(count, finished.set)
    began = time.perf_counter()
    with peer.working():
        if threads:
            publish(peer, count, threads, unheard)
        finished.wait()
    return {"events": count, "seconds": peer.work.ended - began}


def latency(peer: BlockingPeer, rate: float, seconds: float) -> Result:
    """An open loop: each event is sent when it is due, whatever happened to the ones before."""
    count, finished = int(rate * seconds), threading.Event()
    with peer.working():
        peer.work.warm_up(finished.set)
        publish(peer, WARM_UP, SENDERS, unheard, first=count)
        finished.wait()
        finished.clear()
        began = time.perf_counter() + 0.1
        peer.work.expect(count, finished.set, lambda number: began + number / rate)
        numbers = iter(range(count))

        def sender() -> None:
            for number in numbers:
                time.sleep(max(0.0, began + number / rate - time.perf_counter()))
                peer.publish(payload(number))

        in_threads(sender, SENDERS)
        finished.wait()
    return {"events": count, "rate": rate, **percentiles(peer.work.latencies)}


def main(kind: type[BlockingPeer]) -> None:
    """The program."""

    def run(options: argparse.Namespace, done: Progress) -> Result:
        peer = kind(options.url, options.concurrency, Work(options.wait_ms / 1000, done))
        match options.task:
            case "publish":
                return publish(peer, options.count, peer.at_once, done)
            case "alone":
                return publish(peer, options.count, 1, done)
            case "latency":
                return latency(peer, options.rate, options.seconds)
            case task:
                return consume(peer, options.count, peer.at_once if task == "both" else 0)

    program(kind, run)
