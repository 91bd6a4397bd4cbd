"""What is published comes back as it is, or is refused: when the class is made, or at the publish."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import new_class
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PlainSerializer,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    create_model,
    field_serializer,
)

from eventbus import ConfigurationError, Event
from eventbus.checks.fidelity import NONE, same, survey
from eventbus.contract.codec import _kinds, envelop, open_event
from eventbus.errors import CodecError
from eventbus.event import event_class, event_types

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")


class Payment(BaseModel):
    amount: int


class Card(Payment):
    number: str


class Rate(BaseModel):
    share: float = 0.0


class Weekday(Enum):
    MONDAY = ("mo", 1)
    TUESDAY = "tu"


class Level(IntEnum):
    HIGH = 1


class Side(Enum):
    LEFT = "left"


@dataclass
class Point:
    x: int


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


def made(annotation: Any, default: Any = ..., *, name: str = "Probe", config: Any = None, **body: Any) -> Any:
    """An event class with one field."""
    body |= {"__annotations__": {"value": annotation}, "__module__": __name__}
    body |= {} if default is ... else {"value": default}
    body |= {} if config is None else {"model_config": config}
    number = len(event_types())
    return new_class(f"{name}{number}", (Event,), {"type": f"probe.n{number}"}, lambda space: space.update(body))


def tell(cls: Any, value: Any) -> Any:
    """What a handler finds, of a class that has published something before."""
    back: Any = open_event(envelop(cls(value=value)))
    return back.value


# When the class is made -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "default", "said"),
    [
        (int, Field(serialization_alias="other"), "written as 'other' and read as value: give it one alias"),
        (int, Field(validation_alias="other", serialization_alias="third"), "written as 'third'"),
        (int, Field(exclude=True), "exclude=True leaves it out"),
        (int, Field(default=0, exclude=True), "exclude=True leaves it out"),
        (Json[dict[str, int]], ..., "annotate what is in it"),
        (Json, ..., "annotate what is in it"),
        (list[Json[int]], ..., "annotate what is in it"),
        (SecretStr, ..., "asterisks"),
        (SecretBytes | None, None, "asterisks"),
        (dict[str, list[SecretStr]], ..., "asterisks"),
        (Weekday, ..., "Weekday does not come back"),
        (Iterable[int], ..., "annotate it as a list"),
    ],
)
def test_a_field_that_cannot_come_back_is_refused_when_its_class_is_made(
    annotation: Any, default: Any, said: str
) -> None:
    before = event_types()
    with pytest.raises(ConfigurationError, match=f"could be published and not be read: value: .*{said}"):
        made(annotation, default)
    assert event_types() == before, "a class that was refused keeps no type"

    inner = create_model("Inner", value=(annotation, default))
    with pytest.raises(ConfigurationError, match=f"value.value: .*{said}"):
        made(list[inner])


def test_a_generic_class_has_no_type_and_its_concrete_subclasses_have() -> None:
    with pytest.raises(ConfigurationError, match=r"generic in ~T: leave out its type.*Saved\[int\], type="):

        class Saved(Event, Generic[T], type="fidelity.saved"):
            item: T

    assert "fidelity.saved" not in event_types()

    class Kept(Event, Generic[T]):
        item: T

    class KeptNumber(Kept[int], type="fidelity.kept_number"):
        pass

    assert open_event(envelop(KeptNumber(item=3))) == KeptNumber(item=3)
    with pytest.raises(CodecError, match="has no event type"):
        envelop(Kept[int](item=3))


def test_a_class_that_is_not_whole_yet_is_looked_at_with_its_first_event() -> None:
    class Later(Event, type="fidelity.later"):
        inner: "Hidden"

    class Hidden(BaseModel):
        value: int = Field(serialization_alias="other")

    Later.model_rebuild(_types_namespace={"Hidden": Hidden})
    with pytest.raises(CodecError, match=r"inner.value: it is written as 'other'"):
        envelop(Later(inner=Hidden(value=1)))


# At the publish -------------------------------------------------------------------------------------------------------

CERTAIN: list[tuple[Any, list[Any]]] = [
    (int, [0, -1, 2**64 + 1, 10**4000]),
    (float, [0.1, 1e308, 5e-324, -0.0, math.inf, math.nan]),
    (str, ["", "a\0b", "é😀", "12345"]),
    (bool, [True]),
    (bytes, [b"abc"]),
    (UUID, [uuid4()]),
    (Decimal, [Decimal("1.50"), Decimal("1E+50"), Decimal(2**70)]),
    (date, [date(1, 1, 1), date.max]),
    (time, [time(1, 2, 3, 999_999), time(1, tzinfo=UTC)]),
    (timedelta, [timedelta.max, timedelta.min, timedelta(microseconds=-1)]),
    (datetime, [datetime.max, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=BERLIN)]),  # noqa: DTZ901
    (datetime, [datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1)]),
    (list[dict[str, set[int]]], [[{"a": {1, 2}}]]),
    (frozenset[Side], [frozenset(Side)]),
    (tuple[int, str], [(1, "a")]),
    (Sequence[int], [[1], (1, 2)]),  # as a list
    (dict[Side, Level], [{Side.LEFT: Level.HIGH}]),
    (dict[int, str], [{1: "a"}]),
    (int | str, ["5", 5]),
    (int | None, [None, 1]),
    (bool | int, [True, 1]),
    (list[int] | dict[str, int] | None, [[1], {"a": 1}, None]),
    (JsonValue, [{"a": [1, None, 2**80, "x"]}]),
    (Rate, [Rate(share=0.5)]),
    (Annotated[Cat | Dog, Field(discriminator="kind")], [Cat(), Dog()]),
    (Annotated[str, AfterValidator(str.strip)], ["a "]),
]


def test_what_is_certain_comes_back_and_is_read_back_once() -> None:
    for annotation, values in CERTAIN:
        cls = made(annotation)
        for value in values:
            back, kept = tell(cls, value), cls(value=value).value
            assert same(kept, back), (annotation, value, back)
        doubts = survey(cls).doubts
        assert not doubts.always, annotation
        assert (_kinds[cls].doubts is None) is (doubts == NONE)


# The first value comes back, and makes the class known; the others do not.
DOUBTFUL: list[tuple[Any, Any, list[Any]]] = [
    (datetime | str, "never", ["12345", "2026-01-01T00:00:00Z"]),
    (UUID | str, "lead-1", [str(uuid4())]),
    (timedelta | str, "soon", ["PT5S"]),
    (set[int] | list[int], [3], [{1, 2}]),
    (Any, 1, [{1: 2}, Decimal(1), b"x", {"at": datetime.now(UTC)}, {1, 2}, math.nan]),
    (dict[str, Any], {}, [{"a": uuid4()}, {"a": {"b": math.inf}}]),
    (JsonValue, 1.5, [math.nan, {"a": -math.inf}]),
    (float | str, 1.5, [math.nan]),
    (Rate, Rate(), [Rate(share=math.nan), Rate(share=math.inf)]),
    (Payment, Payment(amount=1), [Card(amount=1, number="4111")]),
    (list[Payment], [], [[Payment(amount=1), Card(amount=1, number="4111")]]),
    (dict[str, Payment | None], {}, [{"a": Card(amount=1, number="4111")}]),
    (SerializeAsAny[Payment], Payment(amount=1), [Card(amount=1, number="4111")]),
    (dict[tuple[int, int], int], {}, [{(1, 2): 3}]),
    (Annotated[Decimal, PlainSerializer(lambda value: str(round(value, 2)))], Decimal("1.5"), [Decimal("1.005")]),
    (Annotated[str, Field(exclude_if=lambda value: value == "")], "a", [""]),
    (int, 1, [10**4300, -(10**5000)]),
    (Point, Point(1), []),
]


def test_what_does_not_come_back_is_refused_also_after_one_that_did() -> None:
    for annotation, first, wrong in DOUBTFUL:
        cls = made(annotation)
        tell(cls, first)
        for value in wrong:
            with pytest.raises(CodecError, match=r"would not come back as it is|cannot be written|read again"):
                tell(cls, value)
        tell(cls, first)


def test_a_serializer_for_the_eye_is_refused_with_the_first_event() -> None:
    class Invoiced(Event, type="fidelity.invoiced"):
        amount: Decimal

        @field_serializer("amount")
        def show(self, amount: Decimal) -> str:
            return f"{amount:,} EUR"

    for _ in range(2):
        with pytest.raises(ValueError, match=r"would not come back as it is: amount: "):
            envelop(Invoiced(amount=Decimal("1234.5")))


def test_what_comes_back_by_other_means_is_published() -> None:
    class Signed(Event, type="fidelity.signed"):
        password: SecretStr
        name: str = Field(validation_alias=AliasChoices("name", "fullName"), serialization_alias="fullName")
        first: str = Field(alias="given")
        _cached: int = PrivateAttr(0)

        @field_serializer("password", when_used="json")
        def reveal(self, password: SecretStr) -> str:
            return password.get_secret_value()

        @computed_field  # type: ignore[prop-decorator]
        @property
        def shout(self) -> str:
            return self.name.upper()

    event = Signed(password=SecretStr("x"), name="ann", first="a")
    event._cached = 5
    back = open_event(envelop(event))
    assert isinstance(back, Signed)
    assert (back.password.get_secret_value(), back.name, back.first) == ("x", "ann", "a")


def test_other_attributes_come_back_where_a_class_takes_them() -> None:
    class Open(Event, type="fidelity.open"):
        model_config = ConfigDict(extra="allow")

    with pytest.raises(CodecError, match="beyond its fields"):  # readers let pass what they do not know
        envelop(Open(colour="red"))  # type: ignore[call-arg]


def test_offsets_are_told_in_minutes() -> None:
    cls = made(datetime)
    with pytest.raises(CodecError, match="would not come back"):
        envelop(cls(value=datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=3208)))))


# One type, one class --------------------------------------------------------------------------------------------------


def test_a_taken_type_names_both_classes_and_their_files() -> None:
    body = {"__module__": "fidelity_shop", "__qualname__": "Ordered"}
    new_class("Ordered", (Event,), {"type": "fidelity.ordered"}, lambda space: space.update(body))
    with pytest.raises(ConfigurationError) as refused:
        new_class("Ordered", (Event,), {"type": "fidelity.ordered"}, lambda space: space.update(__module__=__name__))
    told = f"is already taken by fidelity_shop.Ordered (?), and cannot be that of {__name__}.Ordered ({__file__})"
    assert told in str(refused.value)


def test_one_file_under_two_names_is_called_that() -> None:
    def make(module: str) -> type[Event]:
        body = {"__module__": module, "__qualname__": "Twice"}
        return new_class("Twice", (Event,), {"type": "fidelity.twice"}, lambda space: space.update(body))

    import sys  # noqa: PLC0415
    from types import ModuleType  # noqa: PLC0415

    for name in ("app.fidelity_events", "src.app.fidelity_events"):
        sys.modules[name] = module = ModuleType(name)
        module.__file__ = "/srv/app/fidelity_events.py"
    try:
        make("app.fidelity_events")
        with pytest.raises(ConfigurationError, match=r"one file is imported under two names.*python -m"):
            make("src.app.fidelity_events")
    finally:
        for name in ("app.fidelity_events", "src.app.fidelity_events"):
            del sys.modules[name]


def test_a_class_that_is_made_again_with_other_fields_is_told_and_its_events_are_refused() -> None:
    def make(**fields: Any) -> Any:
        body = {"__annotations__": fields, "__module__": __name__, "__qualname__": "Made"}
        cls: Any = new_class("Made", (Event,), {"type": "fidelity.made"}, lambda space: space.update(body))
        return cls

    first = make(a=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = make(a=int)  # a module that is loaded again
    assert event_class("fidelity.made") is again
    back: Any = open_event(envelop(first(a=1)))
    assert (type(back), back.a) == (again, 1)
    with pytest.warns(RuntimeWarning, match="was made a second time, with other fields"):
        last = make(b=str)
    assert event_class("fidelity.made") is last
    with pytest.raises(CodecError, match="b: Field required"):
        envelop(first(a=1))
