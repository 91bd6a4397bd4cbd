"""/api/ws-tickets."""

from gateway.callers import tickets as service
from gateway.callers.tickets import Ticket
from gateway.endpoints.api import Call, Routes

tickets = Routes("/api/ws-tickets")


@tickets.post(status=201)
async def create_ticket(call: Call) -> Ticket:
    """Get a ticket that opens one WebSocket, within 30 seconds."""
    return await service.issue(call.tx, call.caller)
