-- What a year comes to is added up as reports come: `what` of `name` so many times on a day (days since 1970, UTC).
-- installed: a package and its version; off, off-seconds; stayed-on: why.

ALTER TABLE machines ADD COLUMN last_off BIGINT NOT NULL DEFAULT 0;

CREATE TABLE daily (
    college TEXT NOT NULL,
    day BIGINT NOT NULL,
    what TEXT NOT NULL,
    name TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (college, day, what, name)
);
