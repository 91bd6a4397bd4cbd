"""What an aggregate's class may be, and what events do to its state. With a database: tests/integration."""

from typing import Any

import pytest
from pydantic import Field

from eventbus import Aggregate, Event, applies
from eventbus.contract.aggregates import Key, Snapshot, fingerprint, key_of, restore
from eventbus.errors import ConfigurationError


class Filled(Event, type="jar.filled"):
    grams: int


class Emptied(Event, type="jar.emptied"):
    pass


class Jar(Aggregate, name="jar", snapshot_every=2):
    grams: int = 0
    times: list[int] = Field(default_factory=list)

    @applies(Filled)
    def fill(self, event: Filled) -> None:
        self.grams += event.grams
        self.times.append(event.grams)

    @applies(Emptied)
    def empty(self, event: Emptied) -> None:
        self.grams = 0


KEY = Key("acme", "jar", "j-1")


def test_events_change_the_state() -> None:
    jar = Jar()
    for event in (Filled(grams=5), Emptied(), Filled(grams=2)):
        jar.apply(event)
    assert (jar.grams, jar.times, Jar().times) == (2, [5, 2], [])


def test_what_follows_is_a_copy_until_it_is_taken_over() -> None:
    jar = restore(Jar, KEY, None, 0)
    after = jar.followed_by([Filled(grams=5), Filled(grams=1)])
    assert (jar.grams, jar.times, jar.version) == (0, [], 0)
    jar.become(after)
    assert (jar.grams, jar.times, jar.version, jar.key) == (6, [5, 1], 2, KEY)


def test_what_a_method_raises_leaves_the_state_as_it_was() -> None:
    class Cracked(Jar, name="jar"):
        @applies(Emptied)
        def empty(self, event: Emptied) -> None:
            self.grams = -1
            raise ValueError("it is cracked")

    jar = restore(Cracked, KEY, None, 0)
    with pytest.raises(ValueError, match="cracked"):
        jar.followed_by([Filled(grams=5), Emptied()])
    assert (jar.grams, jar.version) == (0, 0)


def test_a_method_of_a_subclass_takes_the_place_of_its_parents() -> None:
    class Large(Jar, name="jar"):
        def fill(self, event: Filled) -> None:
            self.grams += 10 * event.grams

        @applies(Emptied)
        def spill(self, event: Emptied) -> None:
            self.grams -= 1

    jar = Large()
    jar.apply(Filled(grams=1))
    jar.apply(Emptied())
    assert jar.grams == 9


def test_an_event_that_no_method_applies_is_refused() -> None:
    class Lid(Event, type="jar.lid_lost"):
        pass

    with pytest.raises(ConfigurationError, match=r"Jar has no method that @applies\(.*Lid\)"):
        Jar().apply(Lid())


def test_one_that_was_not_loaded_is_none_in_particular() -> None:
    assert Jar().version == 0
    for name in ("key", "organization", "id"):
        with pytest.raises(ConfigurationError, match="not loaded"):
            getattr(Jar(), name)


# Snapshots ------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_due_so_many_events_behind_the_last_one() -> None:
    jar, due = restore(Jar, KEY, None, 0), []
    for _ in range(5):
        jar = jar.followed_by([Filled(grams=1)])
        due.append(jar.next_snapshot() is not None)
    assert due == [False, True, False, True, False]


def test_a_snapshot_is_the_state() -> None:
    jar = restore(Jar, KEY, None, 0).followed_by([Filled(grams=5), Filled(grams=1)])
    snapshot = jar.next_snapshot()
    assert snapshot is not None
    again = restore(Jar, KEY, snapshot, 2)
    assert (again.model_dump(), again.version, again.key) == (jar.model_dump(), 2, KEY)
    assert again.next_snapshot() is None


@pytest.mark.parametrize("state", ["{", '{"grams": "many"}', '{"kilos": 1}', "[]"])
def test_a_snapshot_that_cannot_be_read_is_none(state: str) -> None:
    jar = restore(Jar, KEY, Snapshot(state, fingerprint(Jar)), 7)
    assert (jar.grams, jar.version) == (0, 0)


def weighed(version: int) -> type[Aggregate]:
    class Weighed(Jar, name="jar", version=version):
        pass

    return Weighed


def test_a_fingerprint_tells_fields_and_versions_apart() -> None:
    class Counted(Jar, name="jar"):
        count: int = 0

    assert len({fingerprint(cls) for cls in (Jar, Counted, weighed(1), weighed(2))}) == 4
    assert fingerprint(weighed(1)) == fingerprint(weighed(1))


# Classes --------------------------------------------------------------------------------------------------------------


def _nameless() -> object:
    class Nameless(Aggregate):
        pass

    return key_of(Nameless, "acme", "n-1")


def _shouting() -> object:
    class Shouting(Aggregate, name="LEAD"):
        pass

    return Shouting


def _without_default() -> object:
    class Needy(Aggregate, name="needy"):
        must: int

    return Needy


def _ours() -> object:
    class Own(Aggregate, name="own"):
        version: int = 1

    return Own


def _twice() -> object:
    class Twice(Aggregate, name="twice"):
        @applies(Emptied)
        def one(self, event: Emptied) -> None: ...

        @applies(Emptied)
        def two(self, event: Emptied) -> None: ...

    return Twice


def _later() -> object:
    class Later(Aggregate, name="later"):
        @applies(Emptied)  # type: ignore[arg-type]
        async def empty(self, event: Emptied) -> None: ...

    return Later


def _abstract() -> object:
    class Abstract(Event):
        pass

    return applies(Abstract)(lambda _aggregate, _event: None)


def _never() -> object:
    class Never(Aggregate, name="never", snapshot_every=0):
        pass

    return Never


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (_nameless, "has no name"),
        (_shouting, "'LEAD' is not up to 63 lower-case"),
        (_without_default, r"\['must'\] need a default"),
        (_ours, r"\['version'\]"),
        (_twice, "one applies jar.emptied already"),
        (_later, "must not be async"),
        (_abstract, "no event type"),
        (_never, "at least 1"),
    ],
)
def test_a_class_that_cannot_work_is_refused(declare: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        declare()


@pytest.mark.parametrize("wrong", ["", "a\0b", "x" * 301])
def test_an_id_is_text_that_can_be_kept(wrong: str) -> None:
    with pytest.raises(ValueError, match="text without NUL, 1 to 300 characters"):
        key_of(Jar, "acme", wrong)
    assert str(key_of(Jar, "acme", "j-1")) == "jar 'j-1' of 'acme'"
