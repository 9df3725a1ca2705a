-- The tables of cloakroom, version 1.
--
-- `PostgresStore` runs this file by itself, with the schema and the prefix of your choice. To run it
-- yourself, create the schema `cloakroom` first, and run the file in one transaction.
--
-- Identifiers are `bytea`, so that they are compared byte by byte under every collation. Times are
-- milliseconds since 1970.

CREATE TABLE cloakroom.version (
    version integer NOT NULL
);
INSERT INTO cloakroom.version VALUES (1);

-- A row without a body is a tombstone: a grant that was revoked before it was seen. It has the same primary
-- key as a grant, so that a late insert collides with it.
--
-- `due` is when housekeeping looks at the row. It is never later than `row_expires_at`, and it is rounded down
-- to a day if that is far away. So it seldom changes with a refresh. No other indexed column changes, and the
-- update stays on its page (HOT).
CREATE TABLE cloakroom.grants (
    epoch            bigint NOT NULL,
    expires_at       bigint NOT NULL,
    row_expires_at   bigint NOT NULL,
    due              bigint NOT NULL,
    generation       bigint,
    chain_expires_at bigint,
    revoked_at       bigint,
    id               bytea  NOT NULL PRIMARY KEY,
    client           bytea  NOT NULL,
    subject          bytea  NOT NULL,
    digest           bytea,
    body             bytea
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05);
-- For lists and sweeps, both of which pass over what is revoked.
CREATE INDEX grants_of_subject ON cloakroom.grants (subject, id) WHERE revoked_at IS NULL;
CREATE INDEX grants_of_client ON cloakroom.grants (client, id) WHERE revoked_at IS NULL;
CREATE INDEX grants_by_due ON cloakroom.grants (due);

CREATE TABLE cloakroom.tokens (
    issued_at  bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint,
    grant_id   bytea  NOT NULL,
    digest     bytea  NOT NULL,
    body       bytea  NOT NULL,
    PRIMARY KEY (grant_id, digest)
) WITH (fillfactor = 95, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX tokens_by_end ON cloakroom.tokens (expires_at);

CREATE TABLE cloakroom.rules (
    bound bigint,
    until bigint NOT NULL,
    key   bytea  NOT NULL PRIMARY KEY
);
CREATE INDEX rules_by_end ON cloakroom.rules (until);

-- The revocation log. `bound` belongs to the event in the body.
CREATE TABLE cloakroom.log (
    position bigint NOT NULL PRIMARY KEY,
    until    bigint NOT NULL,
    bound    bigint,
    id       bytea  NOT NULL,
    body     bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX log_by_end ON cloakroom.log (until);

-- Revocations whose grants are not all flagged yet: `after` is the last grant looked at.
CREATE TABLE cloakroom.sweeps (
    position bigint NOT NULL PRIMARY KEY,
    bound    bigint NOT NULL,
    at       bigint NOT NULL,
    entry    bytea  NOT NULL,
    key      bytea  NOT NULL,
    after    bytea  NOT NULL
);

-- One row. Whoever appends to the log updates it, and so holds its lock until the commit: positions become
-- visible in their order.
CREATE TABLE cloakroom.log_state (
    position     bigint NOT NULL,
    newest_bound bigint NOT NULL,
    incarnation  bytea  NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO cloakroom.log_state VALUES (
    0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, uuid_send(gen_random_uuid())
);

CREATE TABLE cloakroom.signing_keys (
    generation bigint NOT NULL PRIMARY KEY,
    version    bigint NOT NULL,
    body       bytea  NOT NULL
);

-- One row: the highest generation that any signing key ever had.
CREATE TABLE cloakroom.signing_keys_state (
    highest_generation bigint NOT NULL
);
INSERT INTO cloakroom.signing_keys_state VALUES (0);

-- What the database remembers of the issuer and the secrets that it belongs to.
CREATE TABLE cloakroom.check_values (
    name  bytea NOT NULL PRIMARY KEY,
    value bytea NOT NULL
);

-- Items that are good once, and were used. `first` is whether the last write spent the item.
CREATE TABLE cloakroom.single_use (
    until bigint  NOT NULL,
    first boolean NOT NULL,
    id    bytea   NOT NULL PRIMARY KEY
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX single_use_by_end ON cloakroom.single_use (until);

-- One row: the latest end of all items that were deleted.
CREATE TABLE cloakroom.single_use_forgotten (
    until bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO cloakroom.single_use_forgotten VALUES (0);

-- The latest end that was forgotten, as it is now and not as it was when the calling statement began: a
-- volatile function takes a snapshot of its own. (READ COMMITTED.)
CREATE FUNCTION cloakroom.latest_forgotten() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT until FROM cloakroom.single_use_forgotten);
END
$$;
