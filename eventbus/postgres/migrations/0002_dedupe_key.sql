-- Publishes that carry a dedupe key: the relay hands it on, and the stream decides who was first.
ALTER TABLE eventbus_outbox
    ADD COLUMN dedupe_key     text,
    ADD COLUMN dedupe_window  double precision,
    ADD COLUMN dedupe_replace boolean NOT NULL DEFAULT false;
