-- featstore manifest, schema 2: clean maps on a grid of the user's choice, the variant `clean_fine`.

ALTER TABLE features ADD COLUMN checksum_clean_fine UBIGINT;
COMMENT ON COLUMN features.checksum_clean_fine IS 'as checksum_raw, of the clean map on the grid that the recipe''s method.clean_grid tells';

-- A view keeps the columns that its tables had when it was made.
CREATE OR REPLACE VIEW stored AS
    SELECT i.dataset, v.backbone, 'v' || v.number AS version, v.digest, v.method, i.* EXCLUDE (dataset),
           s.path AS shard, f.shard_row, s.variants, f.* EXCLUDE (digest, sha256, shard_id, shard_row)
    FROM current_images i
    JOIN versions v ON v.dataset = i.dataset
    JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    JOIN shards s ON s.shard_id = f.shard_id;
COMMENT ON VIEW stored IS 'one row a current image and version that holds its features, with where they lie and their statistics';
