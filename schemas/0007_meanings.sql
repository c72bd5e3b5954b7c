-- featstore manifest, schema 7: what the numbers in masks and depth maps mean, and grids that differ from image to image.

ALTER TABLE datasets ADD COLUMN mask_classes VARCHAR[];
ALTER TABLE datasets ADD COLUMN mask_ignored INTEGER[];
ALTER TABLE datasets ADD COLUMN mask_coding VARCHAR;
ALTER TABLE datasets ADD COLUMN depth_metres DOUBLE;
COMMENT ON COLUMN datasets.mask_classes IS 'name of each label of the semantic masks, from label 0 on; NULL where the layout does not say';
COMMENT ON COLUMN datasets.mask_ignored IS 'labels that count for nothing in training and evaluation: VOC 255, ADE20K 0';
COMMENT ON COLUMN datasets.mask_coding IS 'how a mask file holds its labels: index (a number a pixel), ade20k (colours of the full release) …';
COMMENT ON COLUMN datasets.depth_metres IS 'metres that one unit of a depth map is; NULL where the layout does not say';
UPDATE datasets SET mask_coding = 'index' WHERE layout IN ('voc', 'folder');

ALTER TABLE shards ADD COLUMN grid_height INTEGER;
ALTER TABLE shards ADD COLUMN grid_width INTEGER;
COMMENT ON COLUMN shards.grid_height IS 'rows of patches of every map in it but clean_fine';
COMMENT ON COLUMN shards.grid_width IS 'columns of patches';
UPDATE shards SET grid_height = v.grid_height, grid_width = v.grid_width
    FROM (SELECT DISTINCT digest, grid_height, grid_width FROM versions) v WHERE shards.digest = v.digest;
COMMENT ON COLUMN versions.grid_height IS 'rows of patches; where images keep their shape (--resize keep) those of a square one, and shards tell their own';

DROP VIEW stored;
CREATE VIEW stored AS
    SELECT i.dataset, v.backbone, 'v' || v.number AS version, v.digest, v.method, i.* EXCLUDE (dataset),
           s.path AS shard, f.shard_row, s.variants, s.codec, s.grid_height, s.grid_width,
           f.* EXCLUDE (digest, sha256, shard_row)
    FROM current_images i
    JOIN versions v ON v.dataset = i.dataset
    JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    JOIN shards s ON s.shard_id = f.shard_id;
COMMENT ON VIEW stored IS 'one row a current image and version that holds its features, with where they lie and their statistics';
