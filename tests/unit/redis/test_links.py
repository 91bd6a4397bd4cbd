"""Which key a command names, and what a node says of where it is."""

import pytest

from eventbus.redis.address import Address, Place
from eventbus.redis.links import Command, Redirected, key_of


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("XADD", "k", "*", "field", "value"), "k"),
        (("EVALSHA", "0" * 40, 2, "k", "l", "argument"), "k"),
        (("EVAL", "return 1", 0), None),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "BLOCK", 5, "STREAMS", "k", "l", ">", ">"), "k"),
        (("XGROUP", "CREATE", "k", "g", "0"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("TIME",), None),
        (("CLIENT", "UNBLOCK", 7), None),
        (("PUBLISH", "channel", b"message"), None),
        (("DBSIZE",), None),
    ],
)
def test_the_key_of_a_command(command: Command, key: str | None) -> None:
    assert key_of(command) == key


@pytest.mark.parametrize(
    ("text", "place", "asking"),
    [
        ("MOVED 3999 10.0.0.2:6381", Place("10.0.0.2", 6381), False),
        ("ASK 3999 10.0.0.2:6381", Place("10.0.0.2", 6381), True),
        ("MOVED 3999 one.example:6381", Place("one.example", 6381), False),
        ("MOVED 3999 :6381", Place("here", 6381), False),
        ("MOVED 3999 ?:6381", Place("here", 6381), False),
        ("MOVED 3999 fd00::2:6381", Place("fd00::2", 6381), False),
    ],
)
def test_where_a_node_sends_us(text: str, place: Place, asking: bool) -> None:
    told = Redirected(text, "here")
    assert (told.slot, told.place, told.asking) == (3999, place, asking)


@pytest.mark.parametrize(
    ("url", "beside"),
    [
        ("redis://:pw@one:7000/0", "redis://:pw@two:7001/0"),
        ("rediss://user:p%40w@one/2?ssl_cert_reqs=none", "rediss://user:p%40w@two:7001/2?ssl_cert_reqs=none"),
        ("redis://one", "redis://two:7001"),
        ("unix://:pw@/run/redis.sock?db=3", "redis://:pw@two:7001/3?db=3"),
    ],
)
def test_other_nodes_are_reached_with_the_same_login(url: str, beside: str) -> None:
    assert Address(url).beside(Place("two", 7001)).url == beside


def test_a_host_with_colons_is_put_in_brackets() -> None:
    assert Address("redis://one").beside(Place("fd00::2", 7001)).url == "redis://[fd00::2]:7001"
