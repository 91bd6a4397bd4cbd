"""What the gateway may do with push subscriptions: each user with his own."""

from uuid import UUID

from eventbus import Transaction
from eventbus.event import uuid7
from handlers.common.errors import Invalid, NotFound
from handlers.common.paging import Page, PageQuery, cut
from handlers.delivery.guard import check_callback_url
from handlers.partners.services import Services
from handlers.subscription import store
from handlers.subscription.models import NewSubscription, Subscription

MOST = 20  # browsers of a user; the oldest gives way


async def create(
    tx: Transaction, organization: str, user: str, services: Services, new: NewSubscription
) -> Subscription:
    """The same endpoint again is the same subscription, with the keys that are given now. Raises Invalid for an
    endpoint that is none of the public internet."""
    try:
        check_callback_url(new.endpoint, services.callback_allow)
    except ValueError as error:
        raise Invalid("endpoint", str(error)) from None
    row = await store.put(tx.connection, organization, user, uuid7(), new)
    assert row is not None, "INSERT … RETURNING"
    await store.bound(tx.connection, organization, user, MOST)
    return Subscription.model_validate(dict(row))


async def page(tx: Transaction, organization: str, user: str, query: PageQuery) -> Page[Subscription]:
    rows, cursor = cut(await store.page(tx.connection, organization, user, query), query.limit)
    return Page[Subscription](items=[Subscription.model_validate(dict(row)) for row in rows], next_cursor=cursor)


async def get(tx: Transaction, organization: str, user: str, subscription_id: UUID) -> Subscription:
    row = await store.find(tx.connection, organization, user, subscription_id)
    if row is None:
        raise NotFound("push subscription")
    return Subscription.model_validate(dict(row))


async def delete(tx: Transaction, organization: str, user: str, subscription_id: UUID) -> None:
    if not await store.delete(tx.connection, organization, user, subscription_id):
        raise NotFound("push subscription")
