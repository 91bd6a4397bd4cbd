"""What happens to WhatsApp accounts."""

from eventbus import Event


class ConnectionEstablished(Event, type="whatsapp.connection_established"):
    connection_id: str
    organization_id: str
