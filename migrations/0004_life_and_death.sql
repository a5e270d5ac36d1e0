-- Deleted means gone: the rows of what was deleted are removed, and with them the columns that hid
-- them. Blobs outlive their assets until the store has confirmed that their objects are erased.

ALTER TABLE avatar
    DROP COLUMN deleted_at,
    ADD COLUMN waits integer NOT NULL DEFAULT 0 CHECK (waits >= 0);  -- a part of ours was away
CREATE INDEX avatar_newest ON avatar (organisation_id, id DESC);
CREATE INDEX avatar_deriving ON avatar (id) WHERE status = 'deriving';

ALTER TABLE source
    DROP CONSTRAINT source_avatar_id_fkey,
    ADD CONSTRAINT source_avatar_id_fkey FOREIGN KEY (avatar_id) REFERENCES avatar ON DELETE CASCADE,
    -- what an avatar of another policy than its upload's makes of the same facts
    ADD COLUMN codes    text[],
    ADD COLUMN document text,
    ADD CONSTRAINT source_verdict_is_whole CHECK (num_nonnulls(codes, document) IN (0, 2));
ALTER TABLE derived
    DROP CONSTRAINT derived_avatar_id_fkey,
    ADD CONSTRAINT derived_avatar_id_fkey FOREIGN KEY (avatar_id) REFERENCES avatar ON DELETE CASCADE;
ALTER TABLE verdict
    DROP CONSTRAINT verdict_asset_id_fkey,
    ADD CONSTRAINT verdict_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES asset ON DELETE CASCADE,
    -- what measured the facts: tools, models and limits; the same may be judged again without them
    ADD COLUMN measured_by text;
ALTER TABLE idempotency
    DROP CONSTRAINT idempotency_avatar_id_fkey,
    ADD CONSTRAINT idempotency_avatar_id_fkey
        FOREIGN KEY (avatar_id) REFERENCES avatar ON DELETE CASCADE;
CREATE INDEX idempotency_avatar ON idempotency (avatar_id);

-- An asset knows what its bytes were, also when they are erased and their blob is another's.
ALTER TABLE asset
    DROP COLUMN deleted_at,
    ADD COLUMN sha256          text,
    ADD COLUMN size_bytes      bigint,
    ADD COLUMN waits           integer NOT NULL DEFAULT 0 CHECK (waits >= 0),  -- a part of ours was away
    ADD COLUMN bytes_erased_at timestamptz,  -- by retention; the verdict stays
    ADD COLUMN final_at        timestamptz,  -- when it became ready, rejected or failed
    ADD COLUMN standalone      boolean NOT NULL DEFAULT false;  -- uploaded by itself: no avatar's deletion takes it along
UPDATE asset SET final_at = coalesce(
           (SELECT judged_at FROM verdict WHERE asset_id = asset.id),
           (SELECT max(time) FROM event WHERE subject_id = asset.id AND type = 'asset.failed'),
           created_at)
 WHERE state IN ('rejected', 'failed') OR (state = 'ready' AND origin <> 'derive');
UPDATE asset SET sha256 = b.sha256, size_bytes = b.size_bytes FROM blob b WHERE b.id = asset.blob_id;
ALTER TABLE asset
    ADD CONSTRAINT asset_sha256_shape CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    ADD CONSTRAINT asset_stored_is_known CHECK (
        num_nonnulls(sha256, size_bytes) = 2
            OR (num_nonnulls(sha256, size_bytes) = 0 AND state IN ('pending', 'failed'))),
    ADD CONSTRAINT asset_blob_while_stored CHECK (
        CASE WHEN bytes_erased_at IS NOT NULL THEN blob_id IS NULL AND state IN ('rejected', 'failed')
             WHEN state = 'pending' THEN blob_id IS NULL
             WHEN state = 'failed' THEN true
             ELSE blob_id IS NOT NULL END),
    ADD CONSTRAINT asset_source_until_stored CHECK (
        (source_url IS NOT NULL) = (origin = 'fetch' AND state = 'pending')),
    -- a derived asset is ready from the start, and worked on again when its bytes are lost
    DROP CONSTRAINT asset_claimed_only_in_work,
    ADD CONSTRAINT asset_claimed_only_in_work CHECK (
        claimed_at IS NULL OR state IN ('pending', 'stored') OR origin = 'derive'),
    ADD CONSTRAINT asset_derived_has_media CHECK ((media IS NOT NULL) = (origin = 'derive')),
    ADD CONSTRAINT asset_standalone_was_uploaded CHECK (NOT standalone OR origin = 'upload');
CREATE INDEX asset_unfinished ON asset (id) WHERE state IN ('pending', 'stored');
-- what retention erases, oldest first
CREATE INDEX asset_refused ON asset (final_at)
    WHERE state IN ('rejected', 'failed') AND blob_id IS NOT NULL;
CREATE INDEX asset_same_bytes ON asset (organisation_id, sha256);
CREATE UNIQUE INDEX asset_derived_once ON asset (derived_from, recipe, recipe_version);

-- 'discarded': nothing points to it and nothing may; its object is to be erased.
-- 'lost': assets point to it, and its object is gone or holds other bytes (`greenroom reconcile`).
ALTER TABLE blob
    DROP CONSTRAINT blob_state_known,
    ADD CONSTRAINT blob_state_known CHECK (state IN ('writing', 'stored', 'discarded', 'lost')),
    DROP CONSTRAINT blob_stored_is_whole,
    ADD CONSTRAINT blob_stored_is_whole CHECK (
        state NOT IN ('stored', 'lost') OR (sha256 IS NOT NULL AND size_bytes IS NOT NULL));
DROP INDEX blob_unfinished;
CREATE INDEX blob_unfinished ON blob (written_for) WHERE state IN ('writing', 'discarded');
CREATE INDEX blob_discarded ON blob (id) WHERE state = 'discarded';
CREATE INDEX blob_lost ON blob (organisation_id, sha256) WHERE state = 'lost';

-- Where a caller may send one file, by a form that names its key and size. Its id is that of the
-- asset that it becomes. The row stays until the form has expired, so that what comes late is found.
CREATE TABLE upload (
    id              uuid        PRIMARY KEY,
    organisation_id text        NOT NULL REFERENCES organisation,
    kind            text        NOT NULL,
    policy          text        NOT NULL,
    key             text        NOT NULL UNIQUE,
    max_bytes       bigint      NOT NULL,
    state           text        NOT NULL DEFAULT 'open',
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,  -- the form's
    CONSTRAINT upload_owner_is_no_platform CHECK (organisation_id <> '*'),
    CONSTRAINT upload_kind_known CHECK (kind IN ('video', 'image', 'audio')),
    CONSTRAINT upload_policy_known CHECK (policy IN ('standard', 'strict')),
    -- 'void': deleted; what is sent to it is erased
    CONSTRAINT upload_state_known CHECK (state IN ('open', 'finalised', 'void')),
    CONSTRAINT upload_limit CHECK (max_bytes > 0)
);
CREATE INDEX upload_expired ON upload (expires_at);

-- How far the feed was cut off at its old end: a cursor before it has missed events.
CREATE TABLE feed_start (
    only_row boolean PRIMARY KEY DEFAULT true,
    position bigint  NOT NULL DEFAULT 0,  -- of the last event that is gone
    CONSTRAINT feed_start_one_row CHECK (only_row)
);
INSERT INTO feed_start DEFAULT VALUES;
