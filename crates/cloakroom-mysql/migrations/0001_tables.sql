-- The tables of cloakroom, version 1.
--
-- `~` stands for the prefix of the tables: replace it by `cloakroom_`, or by your own. Every statement can
-- run again after it was interrupted.
--
-- Identifiers, ids and digests are binary columns. They are compared byte by byte, whatever the collation
-- of the database is. Times are milliseconds since 1970.

CREATE TABLE IF NOT EXISTS ~grants (
    id               BINARY(16) NOT NULL,
    client           VARBINARY(255) NOT NULL,
    subject          VARBINARY(257) NOT NULL,
    epoch            BIGINT NOT NULL,
    generation       INT UNSIGNED NULL,
    digest           BINARY(32) NULL,
    chain_expires_at BIGINT NULL,
    expires_at       BIGINT NOT NULL,
    row_expires_at   BIGINT NOT NULL,
    revoked_at       BIGINT NULL,
    -- 1 for the id of a grant that was revoked before it was created.
    tombstone        TINYINT NOT NULL DEFAULT 0,
    body             MEDIUMBLOB NOT NULL,
    PRIMARY KEY (id),
    -- For lists and sweeps, both of which pass over what is revoked.
    KEY grants_of_subject (subject, revoked_at, id),
    KEY grants_of_client (client, revoked_at, id),
    KEY grants_by_end (row_expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS ~tokens (
    grant_id   BINARY(16) NOT NULL,
    digest     BINARY(32) NOT NULL,
    issued_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NULL,
    body       MEDIUMBLOB NOT NULL,
    PRIMARY KEY (grant_id, digest),
    KEY tokens_by_end (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS ~rules (
    rule_key VARBINARY(520) NOT NULL,
    bound    BIGINT NULL,
    ends_at  BIGINT NOT NULL,
    PRIMARY KEY (rule_key),
    KEY rules_by_end (ends_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS ~log (
    position BIGINT NOT NULL,
    id       BINARY(16) NOT NULL,
    ends_at  BIGINT NOT NULL,
    body     MEDIUMBLOB NOT NULL,
    PRIMARY KEY (position),
    -- An entry that is sent twice is there once.
    UNIQUE KEY log_by_id (id),
    KEY log_by_end (ends_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

-- Revocations whose grants are not all marked yet: `last_id` is the last grant looked at.
CREATE TABLE IF NOT EXISTS ~sweeps (
    position   BIGINT NOT NULL,
    entry      BINARY(16) NOT NULL,
    rule_key   VARBINARY(520) NOT NULL,
    bound      BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    last_id    VARBINARY(16) NOT NULL,
    PRIMARY KEY (position),
    KEY sweeps_by_entry (entry)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS ~signing_keys (
    generation BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    body       MEDIUMBLOB NOT NULL,
    PRIMARY KEY (generation)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

-- What the database remembers of the issuer and the secrets that it belongs to.
CREATE TABLE IF NOT EXISTS ~check_values (
    name  VARBINARY(128) NOT NULL,
    value VARBINARY(1024) NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

-- Items that are good once, and were used.
CREATE TABLE IF NOT EXISTS ~single_use (
    id      BINARY(32) NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    KEY single_use_by_end (ends_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

-- One row: the latest end of all items that were deleted.
CREATE TABLE IF NOT EXISTS ~single_use_forgotten (
    id      TINYINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

INSERT IGNORE INTO ~single_use_forgotten VALUES (0, 0);

-- One row, which the program writes: what makes this log another than every other, the position of its
-- newest entry, and the newest bound.
CREATE TABLE IF NOT EXISTS ~state (
    id           TINYINT NOT NULL,
    incarnation  BINARY(16) NOT NULL,
    position     BIGINT NOT NULL,
    newest_bound BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

-- One row: the highest generation that a signing key ever had. It is not in `state`, whose row is locked
-- by every write to the log.
CREATE TABLE IF NOT EXISTS ~key_generations (
    id      TINYINT NOT NULL,
    highest BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

INSERT IGNORE INTO ~key_generations VALUES (0, 0);

-- The version of the tables. It is the last that a migration writes.
CREATE TABLE IF NOT EXISTS ~schema_version (
    id      TINYINT NOT NULL,
    version INT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET = utf8mb4;

INSERT INTO ~schema_version VALUES (0, 1)
    ON DUPLICATE KEY UPDATE version = GREATEST(version, 1);
