"""Names that must not be each other's."""

from eventbus.redis.keys import channel_name


def test_no_two_channels_have_one_name() -> None:
    asked = [
        (namespace, database, channel)
        for namespace in ("eb", "eb:0", "eb:0:0", "eb2")
        for database in (0, 1, 10)
        for channel in ("news", "0:news", "{0}:news", "", ":")
    ]
    assert len({channel_name(*each) for each in asked}) == len(asked)
    assert all(channel_name(*each).startswith(f"{each[0]}:") for each in asked), "rights are given by namespace"
