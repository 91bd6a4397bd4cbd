"""Aggregates on PostgreSQL: rebuilt as they were, one writer at a time, with and without snapshots."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from eventbus import Aggregate, Context, Event, EventBus, Group, MissingEvents, WrongVersion, applies
from eventbus.contract.aggregates import key_of
from eventbus.contract.transaction import Connection, Row, Transaction
from eventbus.errors import CodecError, ConfigurationError, Unavailable
from eventbus.event import Origin, uuid7
from eventbus.postgres import Database
from eventbus.postgres import aggregates as module
from eventbus.postgres.outbox import envelope_of
from tests.waiting import eventually
from tests.working import working


class Deposited(Event, type="vault.deposited"):
    amount: int


class Renamed(Event, type="vault.renamed"):
    name: str | None


class Vault(Aggregate, name="vault"):
    balance: int = 0
    name: str | None = None
    seen: list[int] = Field(default_factory=list)

    @applies(Deposited)
    def deposit(self, event: Deposited) -> None:
        self.balance += event.amount
        self.seen.append(event.amount)

    @applies(Renamed)
    def rename(self, event: Renamed) -> None:
        self.name = event.name


class Photographed(Vault, name="vault", snapshot_every=3):
    pass


async def stored(database: Database, vault_id: str = "v-1", cls: type[Vault] = Vault) -> Vault:
    async with database.transaction() as tx:
        return await tx.load(cls, "acme", vault_id)


async def deposit(database: Database, *amounts: int, cls: type[Vault] = Vault) -> None:
    """One transaction for each."""
    for amount in amounts:
        async with database.transaction() as tx:
            await tx.append(await tx.load(cls, "acme", "v-1"), Deposited(amount=amount))


async def rows(database: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(query, *values)]


async def execute(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


# Rebuilding -----------------------------------------------------------------------------------------------------------


async def test_what_is_not_there_yet_is_at_version_0(database: Database) -> None:
    vault = await stored(database)
    assert (vault.version, vault.organization, vault.id, vault) == (0, "acme", "v-1", vault.model_copy())
    assert (vault.balance, vault.name, vault.seen) == (0, None, [])


async def test_a_state_is_what_its_events_made_of_it(database: Database) -> None:
    await deposit(database, 5, 7)
    async with database.transaction() as tx:
        vault = await tx.load(Vault, "acme", "v-1")
        await tx.append(vault, Renamed(name="gold"), Deposited(amount=1))
        assert (vault.version, vault.balance, vault.name) == (4, 13, "gold")
        again = await tx.load(Vault, "acme", "v-1")
        assert (again, again.version) == (vault, 4), "it reads its own writes"
    assert (await stored(database)).seen == [5, 7, 1]


async def test_what_is_appended_is_published_under_the_key_of_its_aggregate(database: Database) -> None:
    origin = Origin(correlation_id="way-1", metadata={"userId": "ann"})
    async with database.transaction(origin) as tx:
        vault = await tx.load(Vault, "acme", "v-1")
        await tx.publish(Renamed(name="before"))
        await tx.append(vault, Deposited(amount=1), Deposited(amount=2))
        await tx.publish(Renamed(name="behind"))
    async with database.connection() as connection:
        outbox = [envelope_of(row) for row in await connection.fetch("SELECT * FROM eventbus_outbox ORDER BY position")]
        events = await connection.fetch("SELECT * FROM eventbus_aggregate_events ORDER BY version")
    assert [(event.type, event.subject) for event in outbox] == [
        ("vault.renamed", None),
        ("vault.deposited", "v-1"),
        ("vault.deposited", "v-1"),
        ("vault.renamed", None),
    ]
    assert outbox[1:3] == [envelope_of(event) for event in events]
    assert (outbox[1].organization, outbox[1].correlation_id, outbox[1].metadata) == ("acme", "way-1", origin.metadata)


async def test_nothing_of_a_transaction_that_rolls_back_is_there(database: Database) -> None:
    await deposit(database, 1)

    async def change_mind() -> None:
        async with database.transaction() as tx:
            await tx.append(await tx.load(Vault, "acme", "v-1"), Deposited(amount=2))
            raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed"):
        await change_mind()
    assert ((await stored(database)).balance, (await stored(database)).version) == (1, 1)
    assert await rows(database, "SELECT count(*) FROM eventbus_outbox") == [(1,)]


async def test_organizations_and_names_share_nothing(database: Database) -> None:
    class Tomb(Vault, name="tomb"):
        pass

    for place, (cls, organization) in enumerate([(Vault, "acme"), (Vault, "umbrella"), (Tomb, "acme")], start=1):
        async with database.transaction() as tx:
            vault: Vault = await tx.load(cls, organization, "same")
            assert vault.version == 0
            await tx.append(vault, Deposited(amount=place))
    found = await rows(database, "SELECT organization, name, id, version FROM eventbus_aggregates ORDER BY 1, 2")
    assert found == [("acme", "tomb", "same", 1), ("acme", "vault", "same", 1), ("umbrella", "vault", "same", 1)]


async def test_many_events_are_read_in_pages(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    async with database.transaction() as tx:
        await tx.append(await tx.load(Vault, "acme", "v-1"), *(Deposited(amount=n) for n in range(10)))
    assert (await stored(database)).seen == list(range(10))


async def test_text_of_any_kind_comes_back(database: Database) -> None:
    async with database.transaction() as tx:
        photographed = await tx.load(Photographed, "ac'me", "v \\ü")
        await tx.append(photographed, *(Renamed(name=name) for name in ("a\0b", '"', "\u2028 \ud7ff")))
        assert await tx.load(Photographed, "ac'me", "v \\ü") == photographed
    await deposit_to(database, "\U0001f3e6" * 300, "\U0001f3e6" * 300)  # the longest that there may be


async def deposit_to(database: Database, organization: str, vault_id: str) -> None:
    async with database.transaction() as tx:
        await tx.append(await tx.load(Vault, organization, vault_id), Deposited(amount=1))


# Two at once ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 2])
async def test_of_two_writers_one_loses_and_nothing_of_it_is_there(database: Database, before: int) -> None:
    await deposit(database, *[1] * before)
    async with database.transaction() as tx:
        mine = await tx.load(Vault, "acme", "v-1")
        await tx.append(mine, Deposited(amount=100))
        theirs = asyncio.create_task(deposit_late(database, before))
        await eventually(lambda: waits(database))
    with pytest.raises(WrongVersion, match="'v-1' of 'acme'") as lost:
        await theirs
    assert (lost.value.expected, lost.value.actual) == (before, before + 1)
    assert (await stored(database)).balance == before + 100
    assert await rows(database, "SELECT count(*) FROM eventbus_outbox") == [(before + 1,)]


async def deposit_late(database: Database, version: int) -> None:
    async with database.transaction() as tx:
        await tx.append_to(Vault, "acme", "v-1", Deposited(amount=7), expected_version=version)


async def waits(database: Database) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await rows(database, query))


@pytest.mark.parametrize("expected", [0, 1, 3, 2**40])
async def test_any_other_version_than_that_which_is_there_is_wrong(database: Database, expected: int) -> None:
    await deposit(database, 1, 1)
    with pytest.raises(WrongVersion) as wrong:
        await deposit_late(database, expected)
    assert (wrong.value.expected, wrong.value.actual) == (expected, 2)


async def test_what_is_not_there_has_no_version_but_0(database: Database) -> None:
    with pytest.raises(WrongVersion) as wrong:
        await deposit_late(database, 1)
    assert (wrong.value.expected, wrong.value.actual) == (1, 0)
    assert await rows(database, "SELECT * FROM eventbus_aggregates") == []


async def test_who_lost_may_go_on_in_the_same_transaction(database: Database) -> None:
    stale = await stored(database)
    await deposit(database, 1)
    async with database.transaction() as tx:
        with pytest.raises(WrongVersion):
            await tx.append(stale, Deposited(amount=5))
        assert (stale.balance, stale.version) == (0, 0)
        await tx.append(await tx.load(Vault, "acme", "v-1"), Deposited(amount=6))
    assert (await stored(database)).seen == [1, 6]
    assert await rows(database, "SELECT count(*) FROM eventbus_outbox") == [(2,)]


async def test_without_an_expected_version_each_writer_comes_in_turn(database: Database) -> None:
    async def append(tx: Transaction, amount: int) -> int:
        return await tx.append_to(Vault, "acme", "v-1", Deposited(amount=amount), expected_version=None)

    async def alone(amount: int) -> int:
        async with database.transaction() as tx:
            return await append(tx, amount)

    versions = await asyncio.gather(*(alone(1) for _ in range(8)))
    assert sorted(versions) == list(range(1, 9))
    assert (await stored(database)).balance == 8


async def test_a_handler_that_loses_is_run_again_as_a_whole(redis_url: str, migrated_url: str) -> None:
    """Without spending an attempt: of so many, the last one loses four times."""
    group, attempts, count = Group("vaults", concurrency=5), list[int](), 5

    @group.on(Deposited)
    async def take_in(event: Deposited, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        async with ctx.transaction() as tx:
            vault = await tx.load(Vault, "acme", "v-1")
            await asyncio.sleep(0.01)  # long enough for others to have loaded it, too
            await tx.append(vault, Renamed(name=f"{vault.name or ''}{event.amount}"))

    async with EventBus(redis_url, database=migrated_url) as bus, working(bus, group):
        await bus.publish_many([Deposited(amount=n) for n in range(count)])

        async def all_done() -> Vault | None:
            async with bus.transaction() as tx:
                vault = await tx.load(Vault, "acme", "v-1")
            return vault if vault.version == count else None

        vault = await eventually(all_done)
        assert vault is not None
        assert sorted(vault.name or "") == list("01234"), "each of them saw what the others had done"
        assert set(attempts) == {1}
        assert len(attempts) > count, "nobody lost: this tests nothing"


class Watched:
    """A connection on which something else happens between the first query and the next."""

    def __init__(self, connection: Connection, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetchrow(self, query: str, *values: Any) -> Row | None:
        row = await self._connection.fetchrow(query, *values)
        await self._meanwhile()
        return row


async def test_what_is_appended_while_it_is_read_is_not_there_yet(database: Database) -> None:
    await deposit(database, 1, 2)
    async with database.connection() as connection:
        watched = cast(Connection, Watched(connection, lambda: deposit(database, 100)))
        vault = await module.load(watched, Vault, key_of(Vault, "acme", "v-1"))
    assert (vault.version, vault.seen) == (2, [1, 2])
    assert (await stored(database)).seen == [1, 2, 100]


# Snapshots ------------------------------------------------------------------------------------------------------------

SNAPSHOT = "SELECT snapshot_version FROM eventbus_aggregates"
FORGE = "UPDATE eventbus_aggregates SET snapshot = replace(snapshot, '\"balance\":', '\"balance\":1000')"


async def test_a_snapshot_stands_for_what_is_before_it(database: Database) -> None:
    await deposit(database, 1, 2, cls=Photographed)
    assert await rows(database, SNAPSHOT) == [(None,)]
    await deposit(database, 3, 4, cls=Photographed)
    assert await rows(database, SNAPSHOT) == [(3,)]
    assert (await stored(database, cls=Photographed)).seen == [1, 2, 3, 4]

    await execute(database, FORGE)  # so that its use can be seen
    assert (await stored(database, cls=Photographed)).balance == 10006 + 4
    await execute(database, "DELETE FROM eventbus_aggregate_events WHERE version <= 3")
    vault = await stored(database, cls=Photographed)
    assert (vault.version, vault.seen) == (4, [1, 2, 3, 4])


async def test_a_snapshot_is_written_every_so_many_events_however_they_come(database: Database) -> None:
    async with database.transaction() as tx:
        vault = await tx.load(Photographed, "acme", "v-1")
        for count, version in ((2, None), (2, 4), (1, 4), (7, 12)):
            await tx.append(vault, *(Deposited(amount=1) for _ in range(count)))
            assert await tx.connection.fetchval(SNAPSHOT) == version
        await tx.append_to(Photographed, "acme", "v-1", *[Deposited(amount=1)] * 5, expected_version=12)
        assert await tx.connection.fetchval(SNAPSHOT) == 12
        vault = await tx.load(Photographed, "acme", "v-1")
        await tx.append(vault, Deposited(amount=1))
        assert await tx.connection.fetchval(SNAPSHOT) == 18
    assert (await stored(database, cls=Photographed)).balance == 18


class Recounted(Photographed, name="vault", version=2, snapshot_every=3):
    """Its fields are the same, and it makes something else of the events."""

    @applies(Deposited)
    def deposit(self, event: Deposited) -> None:
        self.balance += 2 * event.amount


class Extended(Photographed, name="vault", snapshot_every=3):
    largest: int = 0

    @applies(Deposited)
    def deposit(self, event: Deposited) -> None:
        super().deposit(event)
        self.largest = max(self.largest, event.amount)


@pytest.mark.parametrize(("cls", "changed"), [(Recounted, ("balance", 12)), (Extended, ("largest", 3))])
async def test_a_snapshot_of_another_shape_or_version_is_not_used(
    database: Database, cls: type[Vault], changed: tuple[str, int]
) -> None:
    await deposit(database, 1, 2, 3, cls=Photographed)
    assert await rows(database, SNAPSHOT) == [(3,)]
    name, value = changed
    assert getattr(await stored(database, cls=cls), name) == value
    await deposit(database, 0, cls=cls)
    assert await rows(database, SNAPSHOT) == [(4,)], "the next event writes one that fits"
    await execute(database, "DELETE FROM eventbus_aggregate_events")
    assert getattr(await stored(database, cls=cls), name) == value
    with pytest.raises(MissingEvents):
        await stored(database, cls=Photographed)


@pytest.mark.parametrize(
    ("gone", "first"), [("version = 1", 1), ("version = 2", 2), ("version = 4", 4), ("version > 2", 3), ("true", 1)]
)
async def test_what_cannot_be_rebuilt_is_no_state_at_all(database: Database, gone: str, first: int) -> None:
    await deposit(database, 1, 2, 3, 4)
    await execute(database, f"DELETE FROM eventbus_aggregate_events WHERE {gone}")
    with pytest.raises(MissingEvents, match=f"number {first} is missing"):
        await stored(database)


async def test_a_snapshot_that_would_not_come_back_is_refused_before_anything_is_written(database: Database) -> None:
    class Odd(Aggregate, name="odd", snapshot_every=1):
        held: object = None

        @applies(Deposited)
        def deposit(self, event: Deposited) -> None:
            self.held = (event.amount,)  # a list, behind JSON

    with pytest.raises(ConfigurationError, match="not the same behind JSON"):
        async with database.transaction() as tx:
            await tx.append(await tx.load(Odd, "acme", "o-1"), Deposited(amount=1))
    assert await rows(database, "SELECT * FROM eventbus_aggregates") == []


# Events that nobody applies -------------------------------------------------------------------------------------------


class Sold(Event, type="vault.sold"):
    pass


async def test_an_event_that_nobody_applies_is_not_taken(database: Database) -> None:
    async with database.transaction() as tx:
        vault = await tx.load(Vault, "acme", "v-1")
        with pytest.raises(ConfigurationError, match=r"@applies\(Sold\)"):
            await tx.append(vault, Deposited(amount=1), Sold())
        with pytest.raises(ConfigurationError, match=r"@applies\(Sold\)"):
            await tx.append_to(Vault, "acme", "v-1", Sold(), expected_version=0)
        assert (vault.balance, vault.version) == (0, 0)
        await tx.append(vault)
    assert await rows(database, "SELECT * FROM eventbus_aggregates") == []


async def test_one_that_only_a_later_program_applies_is_told(database: Database) -> None:
    class Later(Vault, name="vault"):
        @applies(Sold)
        def sell(self, event: Sold) -> None:
            self.balance = 0

    async with database.transaction() as tx:
        await tx.append(await tx.load(Later, "acme", "v-1"), Sold())
    with pytest.raises(ConfigurationError, match=r"@applies\(Sold\)"):
        await stored(database)


# Anything at all ------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.builds(Deposited, amount=st.integers(-(2**40), 2**40)),
        st.builds(Renamed, name=st.none() | st.text(max_size=5)),
    ),
    max_size=4,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(st.tuples(STEPS, st.sampled_from([Vault, Photographed, Extended]))))
async def test_what_is_rebuilt_is_what_happened(
    database: Database, transactions: list[tuple[list[Any], type[Vault]]]
) -> None:
    """Whichever class wrote which snapshot meanwhile."""
    vault_id, expected = uuid7(), Extended()
    for events, cls in transactions:
        async with database.transaction() as tx:
            vault = await tx.load(cls, "acme", vault_id)
            await tx.append(vault, *events)
        for event in events:
            expected.apply(event)
        for each in (Vault, Photographed, Extended):
            found = await stored(database, vault_id, each)
            assert found.model_dump() == expected.model_dump(include=set(each.model_fields))
    assert (await stored(database, vault_id)).version == sum(len(events) for events, _ in transactions)


async def test_a_connection_that_breaks_leaves_all_or_nothing(database: Database) -> None:
    await deposit(database, 1)

    async def cut_off() -> None:
        async with database.transaction() as tx:
            await tx.append(await tx.load(Vault, "acme", "v-1"), Deposited(amount=2))
            pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
            await execute(database, f"SELECT pg_terminate_backend({pid})")
            await tx.connection.execute("SELECT 1")

    with pytest.raises(Unavailable):
        await cut_off()
    await deposit(database, 3)
    assert (await stored(database)).seen == [1, 3]


# What comes back ------------------------------------------------------------------------------------------------------


class Method(BaseModel):
    name: str


class CardMethod(Method):
    number: str


class Chosen(Event, type="vault.chosen"):
    method: Method
    labels: Sequence[str] = ()


class Wallet(Aggregate, name="wallet"):
    last: Any = None
    numbers: list[str] = Field(default_factory=list)

    @applies(Chosen)
    def choose(self, event: Chosen) -> None:
        self.last = event.labels
        self.numbers.append(getattr(event.method, "number", "none"))


async def test_the_state_behind_an_append_is_that_behind_a_load(database: Database) -> None:
    async with database.transaction() as tx:
        wallet = await tx.load(Wallet, "acme", "w-1")
        await tx.append(wallet, Chosen(method=Method(name="cash"), labels=("a", "b")))
        with pytest.raises(CodecError, match="would not come back as it is: method="):
            await tx.append(wallet, Chosen(method=CardMethod(name="card", number="4111")))
    async with database.transaction() as tx:
        loaded = await tx.load(Wallet, "acme", "w-1")
    assert (loaded, loaded.version) == (wallet, wallet.version)
    assert loaded.last == wallet.last == ["a", "b"]
