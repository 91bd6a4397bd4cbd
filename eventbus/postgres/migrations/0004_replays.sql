-- What was sent again: who wanted it, why, which events, and how many there were. Dry runs leave no row.
-- One that was cut short has no end, and has replayed as many as are noted, or a few more.
CREATE TABLE eventbus_replays (
    replay_id  uuid PRIMARY KEY,
    began_at   timestamptz NOT NULL,
    by_whom    text NOT NULL,
    why        text NOT NULL,
    source     text NOT NULL,
    group_name text,  -- NULL: dead letters of several groups, each to its own
    filter     jsonb NOT NULL,
    new_ids    boolean NOT NULL,
    matched    bigint NOT NULL,
    replayed   bigint NOT NULL,
    last_event uuid,  -- the last one that was sent
    ended_at   timestamptz
);

CREATE INDEX eventbus_replays_began ON eventbus_replays (began_at);
