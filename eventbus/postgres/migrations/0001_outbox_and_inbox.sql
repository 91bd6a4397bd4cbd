-- Events that wait for the relay, and for a while those that it has published.
CREATE TABLE eventbus_outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL UNIQUE,
    type         text NOT NULL,
    subject      text,
    organization text,
    meta         text NOT NULL,
    data         text NOT NULL,
    due_at       timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);

CREATE INDEX eventbus_outbox_waiting ON eventbus_outbox (position) WHERE published_at IS NULL;
CREATE INDEX eventbus_outbox_published ON eventbus_outbox (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX eventbus_outbox_subject ON eventbus_outbox (organization, subject, position) WHERE subject IS NOT NULL;

-- One row for each event whose effect a group has committed. Keyed by event id: replays change the stream entry's id.
CREATE TABLE eventbus_inbox (
    event_id     uuid NOT NULL,
    group_name   text NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, group_name)
);

CREATE INDEX eventbus_inbox_processed ON eventbus_inbox (processed_at);
