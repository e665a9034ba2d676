-- What is asked of reports minute by minute, kept beside them as they come; and the story of each rollout.

ALTER TABLE machines ADD COLUMN last_on BIGINT NOT NULL DEFAULT 0;

-- What is installed; `started` is 1 once the machine started with it.
CREATE TABLE installs (
    key_id TEXT NOT NULL,
    package TEXT NOT NULL,
    version TEXT NOT NULL,
    at BIGINT NOT NULL,
    started BIGINT NOT NULL,
    PRIMARY KEY (key_id, package)
);

-- Releases that a machine took back, by the digest of their manifest.
CREATE TABLE failures (
    key_id TEXT NOT NULL,
    release_digest TEXT NOT NULL,
    at BIGINT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (key_id, release_digest)
);

CREATE TABLE rollout_steps (
    release_digest TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    step TEXT NOT NULL,
    PRIMARY KEY (release_digest, number)
);
