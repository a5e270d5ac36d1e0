-- The state of Greenroom. CHECK constraints restate the state machines of service/domain.py:
-- a row that the code could not have written is refused by the database as well.
-- PgQueuer's own tables are installed by its own installer, beside these, by `greenroom migrate`.

CREATE TABLE organisation (
    id          text        PRIMARY KEY,
    name        text        NOT NULL,
    policy      text        NOT NULL DEFAULT 'standard',
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organisation_id_shape CHECK (id = '*' OR id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    CONSTRAINT organisation_policy_known CHECK (policy IN ('standard', 'strict'))
);
-- The platform: its keys see every organisation. It owns no media.
INSERT INTO organisation (id, name) VALUES ('*', 'Platform');

CREATE TABLE api_key (
    id              uuid        PRIMARY KEY,
    organisation_id text        NOT NULL REFERENCES organisation,
    name            text        NOT NULL,
    key_sha256      bytea       NOT NULL UNIQUE,
    hint            text        NOT NULL,  -- the first characters, to tell keys apart
    scopes          text[]      NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz,
    CONSTRAINT api_key_hash_size CHECK (octet_length(key_sha256) = 32),
    CONSTRAINT api_key_has_scopes CHECK (cardinality(scopes) > 0),
    CONSTRAINT api_key_scopes_known CHECK (scopes <@ ARRAY[
        'avatars:write', 'avatars:read', 'assets:read', 'events:read',
        'webhooks:write', 'fitting:write', 'admin'])
);

CREATE TABLE avatar (
    id              uuid        PRIMARY KEY,
    organisation_id text        NOT NULL REFERENCES organisation,
    name            text        NOT NULL,
    runtime_type    text        NOT NULL,
    policy          text        NOT NULL,
    status          text        NOT NULL DEFAULT 'accepted',
    cause           text,
    codes           text[]      NOT NULL DEFAULT '{}',  -- why it failed
    message         text,                               -- the same, as a sentence
    sequence        bigint      NOT NULL DEFAULT 0,     -- of its last event
    traceparent     text,
    created_at      timestamptz NOT NULL,
    fitting_since   timestamptz,
    deleted_at      timestamptz,
    CONSTRAINT avatar_owner_is_no_platform CHECK (organisation_id <> '*'),
    CONSTRAINT avatar_name_size CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT avatar_policy_known CHECK (policy IN ('standard', 'strict')),
    CONSTRAINT avatar_status_known CHECK (status IN (
        'accepted', 'fetching', 'inspecting', 'deriving', 'fitting', 'ready', 'failed')),
    CONSTRAINT avatar_cause_known CHECK (cause IN ('rejected', 'source', 'fitting', 'internal')),
    CONSTRAINT avatar_cause_iff_failed CHECK ((status = 'failed') = (cause IS NOT NULL)),
    CONSTRAINT avatar_message_iff_failed CHECK ((status = 'failed') = (message IS NOT NULL)),
    CONSTRAINT avatar_fitting_was_reached CHECK (
        CASE WHEN status IN ('fitting', 'ready') THEN fitting_since IS NOT NULL
             WHEN status = 'failed' THEN (cause = 'fitting') <= (fitting_since IS NOT NULL)
             ELSE fitting_since IS NULL END)
);
CREATE INDEX avatar_newest ON avatar (organisation_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX avatar_waiting_for_fitter ON avatar (fitting_since) WHERE status = 'fitting';

-- One stored object per (organisation, sha256). The row is committed as 'writing' before the
-- first byte, so that an object can always be found from the database.
CREATE TABLE blob (
    id              uuid        PRIMARY KEY,
    organisation_id text        NOT NULL REFERENCES organisation,
    key             text        NOT NULL UNIQUE,
    state           text        NOT NULL DEFAULT 'writing',
    written_for     uuid        NOT NULL,  -- the asset whose run writes it
    sha256          text,
    size_bytes      bigint,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT blob_state_known CHECK (state IN ('writing', 'stored', 'discarded')),
    CONSTRAINT blob_sha256_shape CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT blob_stored_is_whole CHECK (
        state <> 'stored' OR (sha256 IS NOT NULL AND size_bytes IS NOT NULL))
);
CREATE UNIQUE INDEX blob_once_per_organisation ON blob (organisation_id, sha256) WHERE state = 'stored';
CREATE INDEX blob_unfinished ON blob (written_for) WHERE state <> 'stored';

CREATE TABLE asset (
    id               uuid        PRIMARY KEY,
    organisation_id  text        NOT NULL REFERENCES organisation,
    kind             text        NOT NULL,
    origin           text        NOT NULL,
    policy           text        NOT NULL,
    state            text        NOT NULL DEFAULT 'pending',
    blob_id          uuid        REFERENCES blob,
    error_code       text,
    error_message    text,
    http_status      integer,                 -- of the source, where that is the error
    -- the source: encrypted until fetched, without its query for ever after
    source_url       bytea,
    source_shown     text,
    source_expires_at timestamptz,
    -- the work: every write of a run says which claim it holds
    claim            bigint      NOT NULL DEFAULT 0,
    claimed_at       timestamptz,             -- null between runs
    attempts         integer     NOT NULL DEFAULT 0,  -- retryable errors of the source
    failures         integer     NOT NULL DEFAULT 0,  -- ffmpeg or a model died under a live worker
    losses           integer     NOT NULL DEFAULT 0,  -- the worker itself died
    stage            text,
    progress_done    double precision,
    progress_total   double precision,
    progress_unit    text,
    sequence         bigint      NOT NULL DEFAULT 0,
    traceparent      text,
    created_at       timestamptz NOT NULL,
    deleted_at       timestamptz,
    CONSTRAINT asset_kind_known CHECK (kind IN ('video', 'image', 'audio')),
    CONSTRAINT asset_origin_known CHECK (origin IN ('fetch', 'upload', 'derive')),
    CONSTRAINT asset_policy_known CHECK (policy IN ('standard', 'strict')),
    CONSTRAINT asset_state_known CHECK (state IN ('pending', 'stored', 'ready', 'rejected', 'failed')),
    CONSTRAINT asset_error_iff_failed CHECK ((state = 'failed') = (error_code IS NOT NULL)),
    CONSTRAINT asset_error_has_message CHECK ((error_code IS NULL) = (error_message IS NULL)),
    CONSTRAINT asset_blob_while_stored CHECK (
        CASE WHEN deleted_at IS NOT NULL OR state = 'failed' THEN true
             WHEN state = 'pending' THEN blob_id IS NULL
             ELSE blob_id IS NOT NULL END),
    CONSTRAINT asset_source_until_stored CHECK (
        CASE WHEN origin = 'fetch' AND state = 'pending' AND deleted_at IS NULL
             THEN source_url IS NOT NULL ELSE source_url IS NULL END),
    CONSTRAINT asset_claimed_only_in_work CHECK (claimed_at IS NULL OR state IN ('pending', 'stored')),
    CONSTRAINT asset_counts CHECK (claim >= 0 AND attempts >= 0 AND failures >= 0 AND losses >= 0)
);
CREATE INDEX asset_unfinished ON asset (id) WHERE state IN ('pending', 'stored') AND deleted_at IS NULL;
CREATE INDEX asset_blob ON asset (blob_id);

CREATE TABLE source (
    avatar_id uuid NOT NULL REFERENCES avatar,
    role      text NOT NULL,
    asset_id  uuid NOT NULL REFERENCES asset,
    PRIMARY KEY (avatar_id, role),
    CONSTRAINT source_role_known CHECK (role IN ('video', 'image', 'audio'))
);
CREATE INDEX source_asset ON source (asset_id);

-- A verdict and the facts it was judged from. `document` is text, not jsonb: it is served as stored.
CREATE TABLE verdict (
    asset_id   uuid        PRIMARY KEY REFERENCES asset,
    policy     text        NOT NULL,
    accepted   boolean     NOT NULL,
    codes      text[]      NOT NULL,
    facts      text        NOT NULL,
    document   text        NOT NULL,
    judged_at  timestamptz NOT NULL,
    CONSTRAINT verdict_codes_iff_rejected CHECK (accepted = (cardinality(codes) = 0))
);

CREATE TABLE idempotency (
    organisation_id text        NOT NULL REFERENCES organisation,
    key             text        NOT NULL,
    fingerprint     bytea       NOT NULL,
    avatar_id       uuid        REFERENCES avatar,
    status          integer     NOT NULL,
    body            bytea       NOT NULL,
    request_id      text        NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, key),
    CONSTRAINT idempotency_key_size CHECK (char_length(key) BETWEEN 1 AND 255)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

-- The outbox. `position` is assigned under one advisory transaction lock as the last statement
-- before commit, so that it rises in commit order; `sequence` comes from the locked subject row.
CREATE SEQUENCE event_position;
CREATE TABLE event (
    position        bigint      PRIMARY KEY,
    id              uuid        NOT NULL UNIQUE,
    organisation_id text        NOT NULL REFERENCES organisation,
    type            text        NOT NULL,
    subject_id      uuid        NOT NULL,  -- of an avatar or an asset
    subject         text        NOT NULL,  -- the same, as its readers spell it
    sequence        bigint      NOT NULL,
    time            timestamptz NOT NULL,
    data            json        NOT NULL,
    traceparent     text,
    CONSTRAINT event_sequence_once UNIQUE (subject_id, sequence),
    CONSTRAINT event_sequence_positive CHECK (sequence > 0),
    CONSTRAINT event_size CHECK (octet_length(data::text) < 60000)
);
CREATE INDEX event_feed ON event (organisation_id, position);
-- However often work is repeated, this is said once.
CREATE UNIQUE INDEX event_ready_for_fitting_once ON event (subject_id)
    WHERE type = 'avatar.ready_for_fitting';
