"""Free ports on the loopback interface."""

import random
import socket
import time

LOOPBACK = "127.0.0.1"

# Below the ephemeral ports of Linux (32768 on) and macOS (49152 on). A client that keeps dialling the ephemeral port
# of a stopped server is one day given that very port as its own, is connected to itself, and keeps the server out.
_RANGE = range(15_000, 30_000)
_TRIES = 200


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # leftovers in TIME_WAIT keep no server out
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def wait_until_free(port: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    """A port that nobody listens on. Random, so that processes that ask at the same time seldom get the same."""
    for port in random.SystemRandom().sample(_RANGE, _TRIES):
        if is_free(port):
            return port
    raise OSError(f"none of {_TRIES} ports between {_RANGE.start} and {_RANGE.stop} is free")
