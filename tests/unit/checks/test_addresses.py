"""URLs of servers: what is wrong with one, in words that name no part of it, and how one is shown."""

import pytest

from eventbus.checks.addresses import database_fault, show_url, url_fault

REDIS, POSTGRES = ("redis", "rediss", "unix"), ("postgresql", "postgres")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:Qq7/Zz9xx@host",
        "redis://:Qq7#Zz9xx@host",
        "redis://:Qq7?Zz9xx@host",
        "redis://:123?password=Zz9xx@host",
        "redis://:123/Zz9xx@host:6379/0",
        "redis://:Qq7[Zz9xx@host",
        "redis://:Qq7[Zz]9xx@host",
        "redis://:Qq7℀Zz9xx@host",
        "redis://me:Zz9xx",
        "unix:///run/redis.sock#1",
    ],
)
def test_a_password_that_is_not_encoded_is_told_to_be_so(url: str) -> None:
    fault = url_fault(url, REDIS)
    assert fault is not None
    assert "percent-encode" in fault
    for secret in ("Qq7", "Zz9", "9xx", "123"):
        assert secret not in fault + show_url(url)


@pytest.mark.parametrize("password", ["Qq7/Zz9xx", "Qq7#Zz9xx", "Qq7?Zz9xx", "Qq7@Zz9xx", "Qq7[Zz9xx", "12/Zz9xx"])
def test_nor_is_one_of_postgresql(password: str) -> None:
    url = f"postgresql://me:{password}@host:5432/app"
    fault = url_fault(url, POSTGRES, hosts=True)
    assert fault is not None
    assert "percent-encode" in fault
    assert show_url(url) == "postgresql://me:***@host:5432/app"


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host/",
        "redis://host:6379/0",
        "redis://me:p%2Fw@[::1]:6380/15/",
        "redis://:p:a@w%@host",
        "redis://host?db=1&password=a@b",
        "rediss://host?ssl_password=pw",
        "unix://:pw@/run/redis.sock?db=2",
    ],
)
def test_a_sound_url_has_no_fault(url: str) -> None:
    assert url_fault(url, REDIS) is None
    assert database_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://me@/app?host=/run/postgresql",
        "postgresql://me:pw@one:5432,two:5433,[::1]/app?target_session_attrs=read-write",
        "postgresql://host:5432/app?user=me@corp&password=pw",
        "postgresql://%2Frun%2Fpostgresql/app?options=-csearch_path%3Dx",
    ],
)
def test_nor_has_one_of_postgresql(url: str) -> None:
    assert url_fault(url, POSTGRES, hosts=True) is None


@pytest.mark.parametrize(
    "url",
    ["", "host", "host:6379", "http://host", "redis:/host", "redis://host:70000", "redis://host:0", "redis://a:b:c"],
)
def test_what_is_no_such_url_is_told(url: str) -> None:
    fault = url_fault(url, REDIS)
    assert fault is not None
    assert "begin with redis://" in fault or "number from 1 to 65535" in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://host/prod",
        "redis://host/-1",
        "redis://host/1_0",
        "redis://host/+1",
        "redis://host/²",
        "redis://host/1/2",
        "redis://host/2147483648",
        "redis://host/" + "9" * 5_000,
        "redis://host?db=",
        "redis://host?db=prod",
        "redis://host/0?db=-1",
        "unix:///run/redis.sock?db=prod",
    ],
)
def test_a_database_of_redis_is_a_number(url: str) -> None:
    fault = database_fault(url)
    assert fault is not None
    assert "0 is the first" in fault
    assert len(fault) < 250


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:a b@host", "redis://:***@host"),
        ("redis://me:se/cr#et?x@host:1/2", "redis://me:***@host:1/2"),
        ("smtp://me@example.com:pw@mail", "smtp://me@example.com:***@mail"),
        (
            "postgresql://h/app?user=x&sslpassword=pw&password=p@w",
            "postgresql://h/app?user=x&sslpassword=***&password=***",
        ),
        ("me:pw@host:6379", "me:***@host:6379"),
        ("redis://me:pw", "redis://me:***"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert show_url(url) == shown
