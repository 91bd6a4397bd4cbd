-- Things whose state is what their events made of it. Who appends compares `version` with the one that he has seen, and
-- advances it. A snapshot is the state at `snapshot_version`, of a class with the fingerprint `snapshot_schema`.
CREATE TABLE eventbus_aggregates (
    organization     text   NOT NULL,
    name             text   NOT NULL,
    id               text   NOT NULL,
    version          bigint NOT NULL,
    snapshot         text,
    snapshot_version bigint,
    snapshot_schema  text,
    PRIMARY KEY (organization, name, id)
);

-- Their events, in order. Nothing deletes them by itself: they are what there is.
CREATE TABLE eventbus_aggregate_events (
    organization text   NOT NULL,
    name         text   NOT NULL,
    id           text   NOT NULL,
    version      bigint NOT NULL,
    event_id     uuid   NOT NULL,
    type         text   NOT NULL,
    meta         text   NOT NULL,
    data         text   NOT NULL,
    PRIMARY KEY (organization, name, id, version)
);

-- For `eventbus schema check`, which opens some of each type.
CREATE INDEX eventbus_aggregate_events_type ON eventbus_aggregate_events (type, event_id);
