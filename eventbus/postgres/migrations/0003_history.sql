-- Every event, once by its id. `made_at` is the time in that id, so that who knows the id knows the partition.
-- Partitions, one a month, are made when they are needed: see eventbus.postgres.partitions.
CREATE TABLE eventbus_events (
    event_id       uuid NOT NULL,
    made_at        timestamptz NOT NULL,
    type           text NOT NULL,
    organization   text,
    subject        text,
    correlation_id text NOT NULL,
    causation_id   text,
    meta           text NOT NULL,
    data           text NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, made_at)
) PARTITION BY RANGE (made_at);

-- An id rises with time: each of these reads oldest first.
CREATE INDEX eventbus_events_subject ON eventbus_events (organization, subject, event_id) WHERE subject IS NOT NULL;
CREATE INDEX eventbus_events_correlation ON eventbus_events (correlation_id, event_id);
CREATE INDEX eventbus_events_type ON eventbus_events (type, event_id);

-- What groups made of them: a row for each execution of a handler. `made_at` is the event's.
CREATE TABLE eventbus_executions (
    event_id     uuid NOT NULL,
    made_at      timestamptz NOT NULL,
    execution_id uuid NOT NULL,
    group_name   text NOT NULL,
    attempt      integer NOT NULL,
    outcome      text NOT NULL,
    seconds      double precision NOT NULL,
    error        text,
    finished_at  timestamptz NOT NULL,
    PRIMARY KEY (event_id, made_at, execution_id)
) PARTITION BY RANGE (made_at);
