-- The CRM: leads, the funnels they pass through, the tasks and notifications that follow.
--
-- Every primary key begins with the organization, and so does every foreign key: a row cannot refer to another
-- organization's, whatever the program does. Ids are UUIDv7 made by the program: they rise with time, so that lists
-- are paged by id alone and each list query has an index that ends in it.

CREATE TABLE funnels (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    name         text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id)
);

CREATE TABLE steps (
    organization text    NOT NULL,
    id           uuid    NOT NULL,
    funnel_id    uuid    NOT NULL,
    position     integer NOT NULL,
    name         text    NOT NULL,
    PRIMARY KEY (organization, id),
    UNIQUE (organization, funnel_id, position),
    UNIQUE (organization, funnel_id, id),
    FOREIGN KEY (organization, funnel_id) REFERENCES funnels ON DELETE CASCADE
);

-- A template without `after` becomes a task when a lead enters the step, the others when the task of that title is done.
CREATE TABLE task_templates (
    organization text    NOT NULL,
    id           uuid    NOT NULL,
    step_id      uuid    NOT NULL,
    position     integer NOT NULL,
    title        text    NOT NULL,
    description  text,
    due_in_hours float8,
    after        text,
    PRIMARY KEY (organization, id),
    UNIQUE (organization, step_id, title),
    UNIQUE (organization, step_id, position),
    FOREIGN KEY (organization, step_id) REFERENCES steps ON DELETE CASCADE,
    FOREIGN KEY (organization, step_id, after) REFERENCES task_templates (organization, step_id, title)
);

CREATE TABLE leads (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    name         text,
    email        text,
    phone        text,
    company      text,
    source       text        NOT NULL,
    status       text        NOT NULL,
    funnel_id    uuid,
    step_id      uuid,
    assigned_to  text,
    score        integer,
    enrichment   jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, id),
    FOREIGN KEY (organization, funnel_id, step_id) REFERENCES steps (organization, funnel_id, id),
    CHECK ((funnel_id IS NULL) = (step_id IS NULL))
);

CREATE INDEX leads_status ON leads (organization, status, id);
CREATE INDEX leads_step ON leads (organization, step_id, id) WHERE step_id IS NOT NULL;
CREATE INDEX leads_assigned_to ON leads (organization, assigned_to, id) WHERE assigned_to IS NOT NULL;

-- No constraint says "one task a template and lead": a lead may enter a step twice, and that an event creates its tasks
-- once is the inbox' promise. A constraint would only hide it if that promise were broken.
CREATE TABLE tasks (
    organization text        NOT NULL,
    id           uuid        NOT NULL,
    lead_id      uuid,
    template_id  uuid,
    title        text        NOT NULL,
    description  text,
    status       text        NOT NULL DEFAULT 'OPEN' CHECK (status IN ('OPEN', 'COMPLETED')),
    assigned_to  text,
    due_at       timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    completed_by text,
    PRIMARY KEY (organization, id),
    FOREIGN KEY (organization, lead_id) REFERENCES leads ON DELETE CASCADE,
    FOREIGN KEY (organization, template_id) REFERENCES task_templates ON DELETE SET NULL (template_id)
);

CREATE INDEX tasks_lead ON tasks (organization, lead_id, id) WHERE lead_id IS NOT NULL;
CREATE INDEX tasks_status ON tasks (organization, status, id);
CREATE INDEX tasks_assigned_to ON tasks (organization, assigned_to, id) WHERE assigned_to IS NOT NULL;
CREATE INDEX tasks_template ON tasks (organization, template_id) WHERE template_id IS NOT NULL;

CREATE TABLE notifications (
    organization      text        NOT NULL,
    id                uuid        NOT NULL,
    user_id           text        NOT NULL,
    title             text        NOT NULL,
    message           text        NOT NULL,
    action_url        text,
    notification_type text        NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    read_at           timestamptz,
    PRIMARY KEY (organization, id)
);

CREATE INDEX notifications_user ON notifications (organization, user_id, id);
CREATE INDEX notifications_unread ON notifications (organization, user_id, id) WHERE read_at IS NULL;

-- What a POST with an Idempotency-Key answered, committed together with what it did.
CREATE TABLE idempotency_keys (
    organization text        NOT NULL,
    user_id      text        NOT NULL,
    method       text        NOT NULL,
    path         text        NOT NULL,
    key          text        NOT NULL,
    fingerprint  bytea       NOT NULL,
    status       integer     NOT NULL,
    headers      jsonb       NOT NULL,
    body         text        NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (organization, user_id, method, path, key)
);

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
