-- Messages on their way to services outside, and what comes in from them.

-- One row for each thing that was to reach a service outside because of an event: a message's part, a push to one
-- browser, an SMS. These services know no idempotency key, so the row is committed before the call, and says afterwards
-- how it went:
--
--   sending    an attempt is under way, or its process died in it
--   sent       the service has confirmed it, once
--   failed     the last attempt was refused and nothing arrived: the event is tried again, or is a dead letter
--   ambiguous  of `unanswered` attempts nobody knows whether they arrived; `sent_at` says whether one was confirmed
--
-- What has a `sent_at` is not sent again.
CREATE TABLE deliveries (
    organization text        NOT NULL,
    event_id     uuid        NOT NULL,
    part         text        NOT NULL,
    channel      text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('sending', 'sent', 'failed', 'ambiguous')),
    attempts     integer     NOT NULL DEFAULT 1,
    unanswered   integer     NOT NULL DEFAULT 0,
    provider_id  text,
    error        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    sent_at      timestamptz,
    PRIMARY KEY (organization, event_id, part)
);

CREATE INDEX deliveries_ambiguous ON deliveries (organization, updated_at) WHERE state = 'ambiguous';

-- Whose message it is that comes in for an account: the number of a WhatsApp business, the bot of Telegram. An account
-- belongs to one organization: the webhook names the account and nothing else. What comes in is said to the agent in the
-- name of the agent's owner.
CREATE TABLE channel_connections (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    channel      text        NOT NULL CHECK (channel IN ('whatsapp', 'telegram')),
    account      text        NOT NULL,
    agent_id     uuid        NOT NULL,
    user_id      text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id),
    UNIQUE (channel, account),
    FOREIGN KEY (organization, agent_id) REFERENCES agents ON DELETE CASCADE
);

CREATE INDEX channel_connections_agent ON channel_connections (organization, agent_id);

-- What has come in, for good: a provider may repeat a message days later.
CREATE TABLE inbound_messages (
    organization text        NOT NULL,
    channel      text        NOT NULL,
    account      text        NOT NULL,
    provider_id  text        NOT NULL,
    message_id   uuid        NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, channel, account, provider_id)
);

-- How far the history of a WhatsApp account has been read. `cursor` is where the next page begins, null at the start.
-- What was read is in `messages`.
CREATE TABLE whatsapp_imports (
    organization  text        NOT NULL,
    connection_id uuid        NOT NULL,
    cursor        text,
    pages         integer     NOT NULL DEFAULT 0,
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    PRIMARY KEY (organization, connection_id),
    FOREIGN KEY (organization, connection_id) REFERENCES channel_connections ON DELETE CASCADE
);

-- A browser that a user gets pushes in. Whoever registers it last has it: two users may share one.
CREATE TABLE push_subscriptions (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    user_id      text        NOT NULL,
    endpoint     text        NOT NULL,
    p256dh       text        NOT NULL,
    auth         text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id)
);

CREATE UNIQUE INDEX push_subscriptions_endpoint ON push_subscriptions (organization, md5(endpoint));
CREATE INDEX push_subscriptions_user ON push_subscriptions (organization, user_id, id);
