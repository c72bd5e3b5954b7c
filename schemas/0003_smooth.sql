-- featstore manifest, schema 3: the smoothness that stage 1 chose for an image.

ALTER TABLE features ADD COLUMN smooth FLOAT;
COMMENT ON COLUMN features.smooth IS 'lambda of the solver lstsq, chosen by views kept out where the recipe gives several';

-- A view keeps the columns that its tables had when it was made.
CREATE OR REPLACE VIEW stored AS
    SELECT i.dataset, v.backbone, 'v' || v.number AS version, v.digest, v.method, i.* EXCLUDE (dataset),
           s.path AS shard, f.shard_row, s.variants, f.* EXCLUDE (digest, sha256, shard_id, shard_row)
    FROM current_images i
    JOIN versions v ON v.dataset = i.dataset
    JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    JOIN shards s ON s.shard_id = f.shard_id;
COMMENT ON VIEW stored IS 'one row a current image and version that holds its features, with where they lie and their statistics';
