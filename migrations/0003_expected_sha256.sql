-- A caller may say what SHA-256 a source has: bytes with another one never become the asset.

ALTER TABLE asset
    ADD COLUMN expected_sha256 text,
    ADD CONSTRAINT asset_expected_sha256_shape CHECK (expected_sha256 ~ '^[0-9a-f]{64}$'),
    ADD CONSTRAINT asset_expected_of_a_fetch CHECK (expected_sha256 IS NULL OR origin = 'fetch');
