-- Rows of the outbox that cannot reach their stream as they are: the relay sets them aside, with the reason, until
-- somebody has looked at them. A reason without a time is that of a stream that refuses its events for now.
ALTER TABLE eventbus_outbox
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN error     text;

CREATE INDEX eventbus_outbox_failed ON eventbus_outbox (position) WHERE failed_at IS NOT NULL;
