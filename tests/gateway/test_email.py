"""Orders to send mail, from the bus to a real SMTP server."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus import EventBus, Phase
from eventbus.contract.dead_letters import DeadLetter
from eventbus.embedded.ports import free_port
from eventbus.event import uuid7
from handlers import GROUPS, jobs
from handlers.email.handlers import distinct, email, split
from handlers.email.letters import Kind, render
from handlers.email.mail import compose
from handlers.email.postbox import POSTBOX
from handlers.lead.events import LeadCreated
from handlers.partners.services import SERVICES, Services
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.mailserver import DROPPED, MailServer, mail_server
from tests.stopwatch import Stopwatch
from tests.waiting import eventually, until
from tests.working import working

LEA = "lea@example.com"


def services(server: MailServer, sender: str = "Sales <sales@acme.example>") -> Services:
    return Services(smtp_url=server.url, email_from=sender)


@pytest.fixture
async def server(bus: EventBus) -> AsyncIterator[MailServer]:
    """The bus' own."""
    async with mail_server() as server:
        bus.resources.provide(SERVICES, services(server))
        yield server


async def dead(bus: EventBus) -> DeadLetter:
    """The only one, when it is there."""

    async def letters() -> list[DeadLetter]:
        return list(await bus.transport.dead_letters("email"))

    [letter] = await eventually(letters)
    return letter


async def welcome(bus: EventBus, to: str = LEA, **data: Any) -> str:
    return (await jobs.send_welcome_email(bus, to=to, organization="acme", data=data)).id


async def test_each_kind_arrives_in_both_parts(bus: EventBus, server: MailServer, worker: None) -> None:
    lead = uuid7()
    name = "Léa <b>O'Neill</b>"
    ids = [await welcome(bus, name=name)]
    told = {"name": name}
    ids.append((await jobs.send_lead_notification(bus, to=LEA, lead=lead, organization="acme", data=told)).id)
    ids.append((await jobs.send_submission_confirmation(bus, to=LEA, lead=lead, organization="acme", data=told)).id)
    news = "Neuigkeiten für Sie"
    ids.append((await jobs.send_bulk_email(bus, to=[LEA], subject=news, message=name, organization="acme")).id)
    await until(lambda: len(server.received) == 4)
    by_id = {mail.message["Message-ID"]: mail for mail in server.received}
    assert [by_id[f"<{event_id}@acme.example>"].message["Subject"] for event_id in ids] == [
        f"Welcome, {name}",
        f"New lead: {name}",
        "We have received your request",
        "Neuigkeiten für Sie",
    ]
    for mail in server.received:
        assert (mail.to, mail.message["To"], mail.message["From"]) == (LEA, LEA, "Sales <sales@acme.example>")
        text, html = mail.parts
        assert name in text
        assert "Léa &lt;b&gt;O&#39;Neill&lt;/b&gt;" in html
        assert "<b>" not in html

    async def completed() -> bool:
        return all([(await bus.groups.state(email, event_id)).phase is Phase.COMPLETED for event_id in ids])

    await eventually(completed)


async def test_a_lead_hears_that_it_has_been_heard(
    ann: Client, bus: EventBus, server: MailServer, worker: None
) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "email": LEA})).body
    await until(lambda: server.received)
    assert lead["id"] in server.received[0].parts[0]

    async def handled() -> bool:
        events = (await ann.get(f"/api/leads/{lead['id']}/events")).body["items"]
        [mail] = [event for event in events if event["type"] == "email.send_submission_confirmation"]
        return [entry["group"] for entry in mail["handledBy"]] == ["email"]

    await eventually(handled)


async def test_a_lead_from_elsewhere_with_no_good_address_loses_its_mail_alone(
    bus: EventBus, server: MailServer, tables: Tables, worker: None
) -> None:
    created = LeadCreated(
        lead_id=uuid7(), organization_id="acme", status="NEW", source="IMPORT", email="n/a", assigned_to="ann"
    )
    with capture_logs() as logs:
        await bus.publish(created)
        await eventually(lambda: tables.events("lead.calculate_score"))
    assert {event["type"] for event in await tables.events()} == {
        "notification.create",
        "lead.enrich",
        "lead.calculate_score",
    }
    [told] = [line for line in logs if line["event"].startswith("no confirmation is sent")]
    assert (told["lead"], "is no e-mail address" in told["reason"]) == (created.lead_id, True)
    assert await bus.transport.streams() == [], "nothing is dead"


@pytest.mark.parametrize("place", ["rcpt", "data"])
async def test_what_the_server_will_never_take_is_dead_at_once(
    place: str, bus: EventBus, server: MailServer, worker: None
) -> None:
    getattr(server, place)[LEA].append("550 5.1.1 nobody of that name")
    event_id = await welcome(bus)
    letter = await dead(bus)
    assert letter.envelope is not None
    assert (letter.envelope.id, letter.group) == (event_id, "email")
    assert "the mail server answered 550: 5.1.1 nobody of that name" in letter.error
    assert len(server.tries) == 1
    assert server.received == []


@pytest.mark.parametrize("answer", ["451 4.7.1 come back later", DROPPED])
async def test_what_it_may_take_later_is_sent_again(
    answer: str, bus: EventBus, server: MailServer, worker: None
) -> None:
    server.data[LEA].append(answer)
    await welcome(bus)
    await until(lambda: len(server.tries) == 2 and server.received)
    first, second = [at for _, at in server.tries]
    assert second - first >= 1.95
    assert {mail.message["Message-ID"] for mail in server.received} == {server.received[0].message["Message-ID"]}
    assert await bus.transport.dead_letters("email") == []


async def test_a_server_that_is_away_is_waited_for(bus: EventBus, worker: None) -> None:
    port = free_port()
    bus.resources.provide(SERVICES, Services(smtp_url=f"smtp://127.0.0.1:{port}", email_from="sales@acme.example"))
    event_id = await welcome(bus)

    async def failed() -> bool:
        return "the mail server is away" in ((await bus.groups.state(email, event_id)).error or "")

    await eventually(failed)
    async with mail_server(port=port) as server:
        await until(lambda: server.received)


async def test_what_is_not_configured_is_named(bus: EventBus, worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMTP_URL", raising=False)
    monkeypatch.delenv("EMAIL_FROM", raising=False)
    bus.resources.provide(SERVICES, Services(_env_file=None))
    await welcome(bus)
    assert "E-mail is not configured: set SMTP_URL and EMAIL_FROM" in (await dead(bus)).error


async def test_a_wrong_url_is_not_shown(bus: EventBus, worker: None) -> None:
    bus.resources.provide(SERVICES, Services(smtp_url="mail://ada:hush@mail", email_from="sales@acme.example"))
    await welcome(bus)
    error = (await dead(bus)).error
    assert "SMTP_URL is not smtp://" in error
    assert "hush" not in error


async def test_no_header_can_be_added(bus: EventBus, server: MailServer, worker: None) -> None:
    await welcome(bus, name="Lea\r\nBcc: eve@example.com")
    assert "the subject holds control characters" in (await dead(bus)).error
    assert server.tries == []


async def test_no_recipient_can_be_added(bus: EventBus, server: MailServer, tables: Tables, worker: None) -> None:
    """Past the check of whoever makes the order: a row as somebody else's program may have written it."""
    async with bus.transaction() as tx:
        await jobs.send_welcome_email(tx, to=LEA, organization="acme")
    await tables.execute(
        "INSERT INTO eventbus_outbox (event_id, type, organization, meta, data) "
        "SELECT $1, type, organization, meta, $2 FROM eventbus_outbox WHERE type = 'email.send_welcome'",
        uuid7(),
        '{"to": "lea@example.com\\r\\nBcc: eve@example.com", "data": {}}',
    )
    letter = await dead(bus)
    assert "to" in letter.error
    await until(lambda: server.received)
    assert [mail.to for mail in server.received] == [LEA]


async def test_a_sender_with_a_line_break_sends_nothing(bus: EventBus, worker: None) -> None:
    async with mail_server() as server:
        bus.resources.provide(SERVICES, services(server, "sales@acme.example\r\nBcc: eve@example.com"))
        await welcome(bus)
        assert "EMAIL_FROM holds control characters" in (await dead(bus)).error
        assert server.tries == []


async def test_an_event_that_is_delivered_again_mails_nobody_twice(
    bus: EventBus, server: MailServer, tables: Tables, worker: None
) -> None:
    async with bus.transaction() as tx:
        await jobs.send_welcome_email(tx, to=LEA, organization="acme")
    await _noted(tables, 1)
    await tables.execute("UPDATE eventbus_outbox SET published_at = NULL")
    await welcome(bus, "last@example.com")
    await until(lambda: server.to("last@example.com"))
    await _at_rest(bus)
    assert [mail.to for mail in server.received] == [LEA, "last@example.com"]


async def _noted(tables: Tables, count: int) -> None:
    async def noted() -> bool:
        return await tables.number("SELECT count(*) FROM eventbus_inbox WHERE group_name = 'email'") == count

    await eventually(noted)


async def _at_rest(bus: EventBus) -> None:
    async def nothing_left() -> bool:
        counts = await bus.groups.counts(email)
        return not (counts.waiting or counts.active or counts.delayed)

    await eventually(nothing_left)


# Bulk ----------------------------------------------------------------------------------------------------------------

MANY = [f"reader-{n}@example.com" for n in range(25)]


async def _send_bulk(bus: EventBus, to: list[str]) -> None:
    async with bus.transaction() as tx:
        await jobs.send_bulk_email(tx, to=to, organization="acme", subject="News", message="There is news.", priority=3)


async def test_each_of_many_gets_it_once_though_the_list_is_split_twice(
    bus: EventBus, server: MailServer, tables: Tables, worker: None
) -> None:
    server.rcpt[MANY[3]].append("550 gone")
    await _send_bulk(bus, [*MANY, MANY[0], MANY[1].upper()])
    await _noted(tables, 1 + 24)  # the split, and all but the one that is gone
    expected = Counter(set(MANY) - {MANY[3]})
    assert Counter(mail.to for mail in server.received) == expected
    letter = await dead(bus)
    assert letter.envelope is not None
    assert (MANY[3].encode() in letter.envelope.data, letter.envelope.priority) == (True, 3)
    assert letter.envelope.organization == "acme"

    await tables.execute("UPDATE eventbus_outbox SET published_at = NULL WHERE data LIKE '%reader-0@%'")
    await _send_bulk(bus, ["last@example.com", "very-last@example.com"])
    await until(lambda: server.to("last@example.com") and server.to("very-last@example.com"))
    await _at_rest(bus)
    assert Counter(mail.to for mail in server.received) == expected + Counter(
        ["last@example.com", "very-last@example.com"]
    )


async def test_nobody_sees_who_else_got_it(bus: EventBus, server: MailServer, worker: None) -> None:
    await _send_bulk(bus, ["one@example.com", "two@example.com"])
    await until(lambda: len(server.received) == 2)
    assert {mail.to for mail in server.received} == {"one@example.com", "two@example.com"}
    for mail in server.received:
        assert mail.message["To"] == mail.to
        assert ({"one@example.com", "two@example.com"} - {mail.to}).pop().encode() not in mail.raw


@pytest.mark.parametrize("count", [2, 99, 100, 101, 250, 10_000, 10_001])
def test_long_lists_become_shorter_ones(count: int) -> None:
    """None is as long as the list that it comes from, so it ends; and none gets lost."""
    given = [f"{n}@example.com" for n in range(count)]
    parts = list(split(given))
    assert [one for part in parts for one in part] == given
    assert len(parts) <= 100
    assert max(map(len, parts)) < count


def test_a_mailbox_is_itself_in_capitals() -> None:
    assert distinct(["b@x.example", "a@x.example", "B@X.example", "b@x.example"]) == ["b@x.example", "a@x.example"]


# Rate ----------------------------------------------------------------------------------------------------------------


async def test_two_workers_send_ten_a_second_together(
    redis_url: str, database_url: str, bus: EventBus, server: MailServer
) -> None:
    async with EventBus(redis_url, database=database_url) as other:
        other.provide(SERVICES, services(server))
        for each in (bus, other):  # what the first mail alone would wait for
            postbox = await each.use(POSTBOX)
            mail = compose(render(Kind.WELCOME, {}), sender=postbox.sender, to=postbox.sender, event_id=uuid7())
            await postbox.send(mail, postbox.sender)
        server.received.clear()
        server.tries.clear()
        async with working(bus, email), working(other, email):
            began = time.monotonic()
            with Stopwatch() as watch:
                for number in range(36):
                    await welcome(bus, f"reader-{number}@example.com")
                await until(lambda: len(server.received) == 36)
    after = sorted(at - began for _, at in server.tries)
    # However long each is on its way: the eleventh has started a second after the first, and so on.
    assert all(seconds >= number // 10 - 0.01 for number, seconds in enumerate(after)), after
    assert watch.seconds < 6


def test_mail_is_among_the_groups_that_workers_run() -> None:
    assert email in GROUPS
