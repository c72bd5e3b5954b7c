-- featstore manifest, schema 5: what a shard is and whose, what was built when, and what was removed.

-- Shards belong to the folder of a recipe, which outlives the version's row: `rm` takes that one, `gc` the files.
CREATE TABLE shards_5 (
    shard_id        INTEGER PRIMARY KEY,
    path            VARCHAR NOT NULL UNIQUE,
    dataset         VARCHAR NOT NULL,
    backbone        VARCHAR NOT NULL,
    digest          VARCHAR NOT NULL,
    variants        VARCHAR[] NOT NULL,
    codec           VARCHAR NOT NULL,
    samples         INTEGER NOT NULL,
    bytes           BIGINT NOT NULL,
    checksum        VARCHAR,
    sealed_at       TIMESTAMP NOT NULL
);
INSERT INTO shards_5
    SELECT s.shard_id, s.path, v.dataset, v.backbone, v.digest, s.variants, 'none', s.samples, s.bytes, NULL, s.sealed_at
    FROM shards s JOIN versions v USING (version_id);
DROP VIEW stored;
DROP TABLE shards;
ALTER TABLE shards_5 RENAME TO shards;
COMMENT ON TABLE shards IS 'one row a sealed HDF5 file';
COMMENT ON COLUMN shards.path IS 'below the root, with /';
COMMENT ON COLUMN shards.dataset IS 'data set for which it was made; others that share images refer to its features, too';
COMMENT ON COLUMN shards.backbone IS 'as in versions; with dataset and digest it names the folder';
COMMENT ON COLUMN shards.digest IS 'SHA-256 of the recipe, hex';
COMMENT ON COLUMN shards.codec IS 'how features are stored: none (float16), a lossless filter, or int8';
COMMENT ON COLUMN shards.bytes IS 'file size [bytes]';
COMMENT ON COLUMN shards.checksum IS 'BLAKE2b-256 of the file up to its last line, hex; NULL where it was made without';

ALTER TABLE features ADD COLUMN checksum_prefix UBIGINT;
COMMENT ON COLUMN features.checksum_prefix IS 'as checksum_raw, of the prefix tokens; NULL where there are none or the shard was made without';

CREATE TABLE builds (
    build_id        INTEGER PRIMARY KEY,
    dataset         VARCHAR NOT NULL,
    backbone        VARCHAR NOT NULL,
    digest          VARCHAR NOT NULL,
    started_at      TIMESTAMP NOT NULL,
    finished_at     TIMESTAMP,
    wanted          INTEGER NOT NULL,
    present         INTEGER NOT NULL,
    computed        INTEGER,
    failed          INTEGER,
    shards          INTEGER,
    bytes           BIGINT,
    provenance      JSON NOT NULL
);
COMMENT ON TABLE builds IS 'one row a run of `featstore build` or `denoise` that had something to do; counts are images';
COMMENT ON COLUMN builds.finished_at IS 'NULL where it was killed or is still running';
COMMENT ON COLUMN builds.present IS 'wanted images that were stored before';
COMMENT ON COLUMN builds.bytes IS 'what the new shards take [bytes]';
COMMENT ON COLUMN builds.provenance IS 'JSON: command line, git revision, library versions, device';

CREATE TABLE removed (
    dataset         VARCHAR NOT NULL,
    backbone        VARCHAR NOT NULL,
    digest          VARCHAR NOT NULL,
    removed_at      TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, backbone, digest)
);
COMMENT ON TABLE removed IS 'versions that `featstore rm` removed and whose files wait for `featstore gc`';

CREATE VIEW stored AS
    SELECT i.dataset, v.backbone, 'v' || v.number AS version, v.digest, v.method, i.* EXCLUDE (dataset),
           s.path AS shard, f.shard_row, s.variants, s.codec, f.* EXCLUDE (digest, sha256, shard_row)
    FROM current_images i
    JOIN versions v ON v.dataset = i.dataset
    JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    JOIN shards s ON s.shard_id = f.shard_id;
COMMENT ON VIEW stored IS 'one row a current image and version that holds its features, with where they lie and their statistics';
