-- What machines reported. Times are seconds since 1970; documents are JSON as it came.
-- One text for SQLite and PostgreSQL.

-- Which key speaks for a college's node, as an operator accepted it.
CREATE TABLE nodes (
    college TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    accepted BIGINT NOT NULL
);

-- Keys that say they are a college's node, and wait for an operator.
CREATE TABLE knocks (
    college TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    PRIMARY KEY (college, key_id)
);

-- A row for each key; `name` is empty for a node. A machine that was set up anew has another key: `replaced` is 1 for the older.
CREATE TABLE machines (
    key_id TEXT PRIMARY KEY,
    public_key TEXT NOT NULL,
    college TEXT NOT NULL,
    name TEXT NOT NULL,
    replaced BIGINT NOT NULL,
    enrolled BIGINT NOT NULL,
    last_number BIGINT NOT NULL,
    last_digest TEXT NOT NULL,
    last_at BIGINT NOT NULL,
    last_received BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX machines_by_college ON machines (college, replaced, name);

CREATE TABLE events (
    key_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    college TEXT NOT NULL,
    at BIGINT NOT NULL,
    received BIGINT NOT NULL,
    kind TEXT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (key_id, number)
);
CREATE INDEX events_by_college ON events (college, at);
