-- featstore manifest, schema 6: a version that was removed is remembered, so that its number never names another recipe.

ALTER TABLE removed ADD COLUMN number INTEGER;
ALTER TABLE removed ADD COLUMN purged_at TIMESTAMP;
COMMENT ON TABLE removed IS 'versions that `featstore rm` removed; built again, one has its number back and leaves this table';
COMMENT ON COLUMN removed.number IS 'that of the version; no other recipe gets it';
COMMENT ON COLUMN removed.purged_at IS 'when `featstore gc` had deleted all of its files; NULL while some wait for it';
