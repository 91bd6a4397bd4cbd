"""The rule is a table; these are its rows."""

import pytest

from handlers.lead.score import SOURCES, Profile, score

NOTHING = Profile(None, None, None, None, "")


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 0),
        ({"name": "Lea"}, 10),
        ({"email": "lea@example.com"}, 35),
        ({"email": "lea@gmail.com"}, 20),
        ({"email": "lea@GMail.com"}, 20),
        ({"email": "gmail.com@example.com"}, 35),
        ({"phone": "+1"}, 20),
        ({"company": "Example"}, 15),
        ({"source": "REFERRAL"}, 20),
        ({"source": "referral"}, 20),
        ({"source": "EVENT"}, 15),
        ({"source": "WEBSITE"}, 10),
        ({"source": "WHATSAPP"}, 10),
        ({"source": "TELEGRAM"}, 10),
        ({"source": "IMPORT"}, 0),
        ({"name": "", "email": "", "phone": "", "company": ""}, 0),
    ],
)
def test_each_fact_has_its_points(changes: dict[str, str], points: int) -> None:
    assert score(NOTHING._replace(**changes)) == points


def test_the_most_is_a_hundred() -> None:
    best = Profile("Lea", "lea@example.com", "+1", "Example", max(SOURCES, key=SOURCES.__getitem__))
    assert score(best) == 100
