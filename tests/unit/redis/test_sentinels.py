"""URLs of services behind sentinels."""

import pytest

from eventbus.errors import ConfigurationError, Unavailable
from eventbus.redis.address import Address
from eventbus.redis.sentinels import Sentinels
from eventbus.redis.where import locate

WHOLE = (
    "rediss+sentinel://ann:p%2Fw@a,b:1,[::1]:2/main/3?sentinel_username=eve&sentinel_password=s%23&ssl_cert_reqs=none"
)


def test_a_url_names_sentinels_their_login_the_service_and_the_servers_login() -> None:
    found = locate(WHOLE)
    assert isinstance(found, Sentinels)
    assert [sentinel.url for sentinel in found._sentinels] == [
        "rediss://eve:s%23@a:26379?ssl_cert_reqs=none",
        "rediss://eve:s%23@b:1?ssl_cert_reqs=none",
        "rediss://eve:s%23@[::1]:2?ssl_cert_reqs=none",
    ]
    assert found._at("::2", 9).url == "rediss://ann:p%2Fw@[::2]:9/3?ssl_cert_reqs=none"
    assert found._at("c", 9).login == [("AUTH", "ann", "p/w"), ("SELECT", 3)]
    assert found.name == "Redis 'main' of the sentinels at a,b:1,[::1]:2"


def test_what_is_not_said_is_usual() -> None:
    found = locate("redis+sentinel://a/main")
    assert isinstance(found, Sentinels)
    assert [sentinel.url for sentinel in found._sentinels] == ["redis://a:26379"]
    assert found._at("b", 6379).login == []
    assert isinstance(locate("redis://a"), Address)


@pytest.mark.parametrize(
    "url",
    [
        *("redis+sentinel://", "redis+sentinel://a", "redis+sentinel://a/", "redis+sentinel:///main"),
        *("redis+sentinel://a,,b/main", "redis+sentinel://a,/main", "redis+sentinel://a/main/0/1"),
        *("redis+sentinel://a:x/main", "redis+sentinel://a:99999/main", "redis+sentinel://[::1/main"),
        *("redis+sentinel://:sec/ret@a/main", "redis+sentinel://a/main?socket_timeout=soon"),
    ],
)
def test_what_names_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        locate(url)
    assert "ret@" not in str(refused.value)


def test_before_the_first_answer_the_primary_is_not_known() -> None:
    with pytest.raises(Unavailable, match="no sentinel has named"):
        _ = locate("redis+sentinel://a/main").url
