-- What goes over WebSockets and must outlive them: responses until a socket has them, and tickets to open one.

-- A response on its way to the sockets of a user. Taken, it stays for a minute more: for a gateway that heard nothing
-- meanwhile and has sockets of the same user. `frame` is JSON as text: jsonb refuses NUL, which a workflow may answer.
CREATE TABLE responses_waiting (
    organization text        NOT NULL,
    user_id      text        NOT NULL,
    message_id   text        NOT NULL,
    frame        text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    taken_at     timestamptz,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (organization, user_id, message_id)
);

CREATE INDEX responses_waiting_expiry ON responses_waiting (expires_at);

-- Only the digest of a ticket is here: who reads the table cannot come in with what he reads.
CREATE TABLE ws_tickets (
    organization text        NOT NULL,
    digest       bytea       NOT NULL,
    user_id      text        NOT NULL,
    roles        text[]      NOT NULL,
    tier         text        NOT NULL,
    token_until  bigint      NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (organization, digest)
);

CREATE INDEX ws_tickets_expiry ON ws_tickets (expires_at);
