-- The primary that the outbox was last relayed to: when another takes its place, the last rows are looked for there.
CREATE TABLE eventbus_relayed_to (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    server   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);
