"""Events, their types, and ids that carry the time."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from eventbus.errors import ConfigurationError, UnknownEventType
from eventbus.event import Envelope, Event, event_class, stream_of, unix_ms, uuid7


class Shipped(Event, type="parcel.shipped_out"):
    parcel_id: str
    weight: float = 1.0


def test_an_event_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Shipped(parcel_id="p").parcel_id = "q"  # type: ignore[misc]


def test_a_typo_is_found_where_it_is_made() -> None:
    wrong: dict[str, Any] = {"parcel_id": "p", "wieght": 2.0}
    with pytest.raises(ValidationError, match="wieght"):
        Shipped(**wrong)


def test_fields_are_known_by_both_of_their_names() -> None:
    assert Shipped.model_validate({"parcelId": "p"}) == Shipped(parcel_id="p")


def test_a_type_finds_its_class() -> None:
    assert event_class("parcel.shipped_out") is Shipped
    assert Shipped.event_type == "parcel.shipped_out"
    with pytest.raises(UnknownEventType, match=r"parcel\.lost_for_good"):
        event_class("parcel.lost_for_good")


def test_the_first_segment_of_the_type_names_the_stream() -> None:
    assert stream_of("parcel.shipped.late") == "parcel"
    assert Envelope(uuid7(), "parcel.shipped_out", b"{}").stream == "parcel"


@pytest.mark.parametrize(
    "wrong", ["parcel", "Parcel.shipped", "parcel.", ".shipped", "parcel shipped", "1.a", "a.b\n", "ä.b"]
)
def test_a_type_that_is_no_type_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not of the form 'stream\.name'"):
        type("Wrong", (Event,), {}, type=wrong)


def test_two_classes_cannot_share_a_type() -> None:
    with pytest.raises(ConfigurationError, match=r"already taken by .*Shipped"):

        class Other(Event, type="parcel.shipped_out"):
            pass

    assert event_class("parcel.shipped_out") is Shipped


def test_a_module_that_is_loaded_again_may_define_its_events_again() -> None:
    def define() -> type[Event]:
        class Again(Event, type="parcel.defined_again"):
            pass

        return Again

    define()
    assert event_class("parcel.defined_again") is not define()
    assert event_class("parcel.defined_again").__name__ == "Again"


def test_a_class_without_type_shares_fields_and_is_abstract() -> None:
    class Base(Event):
        organization_id: str

    class Lost(Base, type="parcel.lost"):
        parcel_id: str

    class Sub(Lost):
        pass

    assert (Base.event_type, Lost.event_type, Sub.event_type) == ("", "parcel.lost", "")


# Ids ------------------------------------------------------------------------------------------------------------------


def test_an_id_is_a_uuid_of_version_7_that_tells_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert (made[14], made[19] in "89ab", len(made)) == ("7", True, 36)
    assert before <= unix_ms(made) <= time.time_ns() // 1_000_000 + 1
    envelope = Envelope(made, "parcel.shipped_out", b"{}")
    assert timedelta(0) <= datetime.now(UTC) - envelope.time + timedelta(milliseconds=2) < timedelta(seconds=5)


def test_ids_rise_and_none_comes_twice() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_rise_though_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert uuid7() > first


def test_threads_make_no_id_twice() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([uuid7() for _ in range(2_000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_what_is_no_id_has_no_time() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        unix_ms("no uuid")


def test_the_first_event_of_a_chain_is_its_own_correlation() -> None:
    envelope = Envelope(uuid7(), "parcel.shipped_out", b"{}")
    assert envelope.correlation == envelope.id
    assert envelope._replace(correlation_id="c").correlation == "c"
