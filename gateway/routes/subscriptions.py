"""/api/push-subscriptions: the browsers in which the caller gets pushes."""

from uuid import UUID

from eventbus import Reject
from gateway.endpoints.api import Call, Routes
from handlers.common.errors import NotFound
from handlers.common.paging import Page, PageQuery
from handlers.notification import vapid
from handlers.partners.services import SERVICES
from handlers.subscription import service
from handlers.subscription.models import NewSubscription, PublicKey, Subscription

subscriptions = Routes("/api/push-subscriptions")


@subscriptions.post(status=201, location="/api/push-subscriptions/{id}")
async def create_subscription(call: Call, body: NewSubscription) -> Subscription:
    """Register a browser, as its PushSubscription.toJSON() describes it; again is the same subscription."""
    services = await call.bus.resources.use(SERVICES)
    return await service.create(call.tx, call.organization, call.caller.user, services, body)


@subscriptions.get()
async def list_subscriptions(call: Call, query: PageQuery) -> Page[Subscription]:
    """The caller's browsers, newest first."""
    return await service.page(call.tx, call.organization, call.caller.user, query)


@subscriptions.get("/key", problems={404})
async def get_push_key(call: Call) -> PublicKey:
    """The key that a browser subscribes with; 404 where Web Push is not configured."""
    try:
        return PublicKey(public_key=vapid.public_key(await call.bus.resources.use(SERVICES)))
    except Reject:
        raise NotFound("key: Web Push is not configured") from None


@subscriptions.get("/{subscription_id}")
async def get_subscription(call: Call, subscription_id: UUID) -> Subscription:
    """One browser."""
    return await service.get(call.tx, call.organization, call.caller.user, subscription_id)


@subscriptions.delete("/{subscription_id}")
async def delete_subscription(call: Call, subscription_id: UUID) -> None:
    """Forget a browser."""
    await service.delete(call.tx, call.organization, call.caller.user, subscription_id)
