-- Agents, and what is said to them.
--
-- A conversation belongs to one user: whoever knows its id and is somebody else finds nothing. Rows of a conversation
-- rise by position, which is what its history is paged by.

CREATE TABLE agents (
    organization  text        NOT NULL,
    id            uuid        NOT NULL,
    user_id       text        NOT NULL,
    name          text        NOT NULL,
    model         text,
    system_prompt text,
    workflow      text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id)
);

CREATE INDEX agents_user ON agents (organization, user_id, id);

CREATE TABLE conversations (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    user_id      text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id)
);

-- `message_id` names a question and its response: the id that the client knows, unique for its user alone. `event_id` is
-- the message.received that brought it; none for what was imported. The agent may be gone by now.
CREATE TABLE messages (
    organization    text        NOT NULL,
    id              uuid        NOT NULL,
    position        bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    conversation_id uuid        NOT NULL,
    user_id         text        NOT NULL,
    message_id      text        NOT NULL,
    role            text        NOT NULL CHECK (role IN ('user', 'assistant')),
    channel         text        NOT NULL,
    agent_id        uuid,
    event_id        uuid,
    content         text        NOT NULL,
    metadata        jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id),
    FOREIGN KEY (organization, conversation_id) REFERENCES conversations ON DELETE CASCADE
);

CREATE INDEX messages_conversation ON messages (organization, conversation_id, position);

-- No constraint says "one response a message": that is the inbox' promise, and a constraint would hide it if broken.
CREATE UNIQUE INDEX messages_question ON messages (organization, user_id, message_id) WHERE role = 'user';
CREATE INDEX messages_response ON messages (organization, user_id, message_id) WHERE role = 'assistant';
