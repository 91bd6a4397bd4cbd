"""What is told of deliveries on the wire of the gateway."""

from handlers.common.fields import Answer


class CallbackSecret(Answer):
    """`secret`: as libraries for Standard Webhooks take it, `whsec_` and base64."""

    secret: str
