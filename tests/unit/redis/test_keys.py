"""Names that must not be each other's."""

from eventbus.redis.keys import channel_name


def test_no_two_channels_have_one_name() -> None:
    asked = [
        (namespace, database, channel)
        for namespace in ("eb", "eb:0", "eb:0:0", "eb2")
        for database in (0, 1, 10)
        for channel in ("news", "0:news", "{0}:news", ":")
    ]
    assert len({channel_name(*each) for each in asked}) == len(asked)
    others = [each for each in asked if each[:2] != ("eb", 0)]
    assert all(channel_name(*each).startswith(f"{each[0]}:") for each in others), "rights are given by namespace"


def test_whoever_listens_to_a_bus_as_it_is_by_default_needs_no_other_name() -> None:
    assert channel_name("eb", 0, "pubsub:response:web") == "pubsub:response:web"
