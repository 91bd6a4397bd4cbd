"""What belongs to the same request, as far as it can be told in passing."""

from eventbus.contract.broker import Broker
from eventbus.contract.inspection import Related
from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from eventbus.redis.related import LEAN, NEWEST
from tests.samples import STREAM, envelope

META = {"x": '"correlationId":"c-1"', "correlationId": "c-1"}


async def test_what_has_the_same_correlation_id(transport: Broker) -> None:
    root = envelope(1)
    caused = envelope(2, correlation_id=root.id, causation_id=root.id, priority=1)
    later = envelope(3, correlation_id=root.id, priority=9)
    elsewhere = envelope(4, stream="parcel", correlation_id=root.id)
    strangers = [envelope(5), envelope(6, correlation_id=uuid7()), envelope(7, metadata={"correlationId": root.id})]
    await transport.append([Outgoing(one) for one in (root, caused, elsewhere, *strangers)])
    await transport.append([Outgoing(later, 60.0), Outgoing(strangers[0]._replace(id=uuid7()), 60.0)])
    found = {one.envelope.id: one for one in await transport.related(root.id)}
    assert found.keys() == {root.id, caused.id, later.id, elsewhere.id}
    assert found[caused.id] == Related(caused, None)
    due = found[later.id]
    assert due.envelope == later
    assert due.scheduled is not None
    assert 50 < due.scheduled <= 60
    assert [one.envelope for one in await transport.related(root.id, ["parcel"])] == [elsewhere]
    assert await transport.related("c-9") == await transport.related(root.id, ["nothing"]) == []


async def test_ids_of_somebody_elses_making(transport: Broker) -> None:
    for correlation in ('"', "c-1", "\\", "%d+", "ä", '","correlationId":"c-1'):
        await transport.append([Outgoing(one := envelope(correlation_id=correlation, metadata=META))])
        assert [found.envelope for found in await transport.related(correlation)] == [one], correlation


async def test_what_is_no_envelope_is_passed_by(raw: Links, redis_transport: RedisTransport) -> None:
    lane = stream_keys("eb", STREAM).lane(5)
    await raw.execute("XADD", lane, "*", "id", "x", "type", "y", "meta", '{"correlationId":"c-1"', "data", "z")
    await raw.execute("XADD", lane, "*", "something", "else")
    await redis_transport.append([Outgoing(one := envelope(correlation_id="c-1"))])
    assert [found.envelope for found in await redis_transport.related("c-1")] == [one]


async def test_large_ones_are_told_of_without_their_data(redis_transport: RedisTransport) -> None:
    large = envelope(correlation_id="c-1")._replace(data=b'"' + b"x" * LEAN + b'"')
    await redis_transport.append([Outgoing(large)])
    await redis_transport.append([Outgoing(later := large._replace(id=uuid7()), 60.0)])
    found = [one.envelope for one in await redis_transport.related("c-1")]
    assert found == [large._replace(data=b""), later._replace(data=b"")]


async def test_there_is_an_end_to_looking(raw: Links, redis_transport: RedisTransport) -> None:
    await redis_transport.append([Outgoing(envelope(correlation_id="c-1"))])
    await redis_transport.append([Outgoing(envelope()) for _ in range(NEWEST)])
    assert await redis_transport.related("c-1") == []
