-- The status `deriving` made real: runs of work on avatars, what is derived from their sources,
-- and how alike those are. A blob's `written_for` may now be an avatar: one that is deriving.

ALTER TABLE avatar
    -- the work, as on assets: every write of a run says which claim it holds
    ADD COLUMN claim          bigint  NOT NULL DEFAULT 0,
    ADD COLUMN claimed_at     timestamptz,
    ADD COLUMN attempts       integer NOT NULL DEFAULT 0,
    ADD COLUMN failures       integer NOT NULL DEFAULT 0,
    ADD COLUMN losses         integer NOT NULL DEFAULT 0,
    ADD COLUMN stage          text,
    ADD COLUMN progress_done  double precision,
    ADD COLUMN progress_total double precision,
    ADD COLUMN progress_unit  text,
    -- its sources beside each other; text, not jsonb: served as stored
    ADD COLUMN pairs          text,
    ADD CONSTRAINT avatar_works_only_while_deriving CHECK (
        status = 'deriving' OR (claimed_at IS NULL AND stage IS NULL)),
    ADD CONSTRAINT avatar_claimed_before_fitting CHECK (pairs IS NULL OR claim > 0),
    ADD CONSTRAINT avatar_counts CHECK (
        claim >= 0 AND attempts >= 0 AND failures >= 0 AND losses >= 0);
CREATE INDEX avatar_deriving ON avatar (id) WHERE status = 'deriving' AND deleted_at IS NULL;

ALTER TABLE asset
    ADD COLUMN derived_from   uuid REFERENCES asset,
    ADD COLUMN recipe         text,
    ADD COLUMN recipe_version integer,
    ADD COLUMN media          text,  -- of a derived asset; others have it in their verdict
    ADD CONSTRAINT asset_derived_is_whole CHECK (
        num_nonnulls(derived_from, recipe, recipe_version)
            = CASE WHEN origin = 'derive' THEN 3 ELSE 0 END),
    ADD CONSTRAINT asset_derived_has_media CHECK (
        CASE WHEN origin <> 'derive' THEN media IS NULL
             WHEN deleted_at IS NULL THEN media IS NOT NULL
             ELSE true END),
    ADD CONSTRAINT asset_derived_is_ready CHECK (origin <> 'derive' OR state = 'ready');
-- However often work is repeated, and however many avatars use the source.
CREATE UNIQUE INDEX asset_derived_once ON asset (derived_from, recipe, recipe_version)
    WHERE deleted_at IS NULL;

-- What an avatar goes to its fitter with, beside its sources.
CREATE TABLE derived (
    avatar_id uuid NOT NULL REFERENCES avatar,
    recipe    text NOT NULL,
    asset_id  uuid NOT NULL REFERENCES asset,
    PRIMARY KEY (avatar_id, recipe)
);
CREATE INDEX derived_asset ON derived (asset_id);
