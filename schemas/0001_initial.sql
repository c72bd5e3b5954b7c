-- featstore manifest, schema 1. One DuckDB file lists every data set, image, annotation, version, shard and feature.
-- Comments here are the documentation: `featstore query NAME` prints them. 0009_comments.sql has the others.

CREATE TABLE schema_migrations (
    number      INTEGER PRIMARY KEY,
    name        VARCHAR NOT NULL,
    applied_at  TIMESTAMP NOT NULL
);
COMMENT ON TABLE schema_migrations IS 'migrations applied to this manifest';

CREATE TABLE datasets (
    dataset     VARCHAR PRIMARY KEY,
    layout      VARCHAR NOT NULL,
    source      VARCHAR NOT NULL,
    revision    INTEGER NOT NULL
);
COMMENT ON TABLE datasets IS 'one row a data set';
COMMENT ON COLUMN datasets.layout IS 'how the source was read: voc, folder, demo';
COMMENT ON COLUMN datasets.source IS 'absolute folder or URL the images were last indexed from';
COMMENT ON COLUMN datasets.revision IS 'newest revision';

CREATE TABLE revisions (
    dataset     VARCHAR NOT NULL,
    revision    INTEGER NOT NULL,
    created_at  TIMESTAMP NOT NULL,
    source      VARCHAR NOT NULL,
    added       INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    removed     INTEGER NOT NULL,
    images      INTEGER NOT NULL,
    PRIMARY KEY (dataset, revision)
);
COMMENT ON TABLE revisions IS 'one row each time `featstore index` found something new; counts are images';

CREATE TABLE images (
    dataset         VARCHAR NOT NULL,
    image_id        VARCHAR NOT NULL,
    path            VARCHAR NOT NULL,
    sha256          VARCHAR NOT NULL,
    bytes           BIGINT NOT NULL,
    mtime_ns        BIGINT NOT NULL,
    width           INTEGER NOT NULL,
    height          INTEGER NOT NULL,
    mode            VARCHAR NOT NULL,
    part            VARCHAR,
    split           VARCHAR,
    splits          VARCHAR[] NOT NULL,
    label           VARCHAR,
    mask_path       VARCHAR,
    instance_path   VARCHAR,
    depth_path      VARCHAR,
    first_revision  INTEGER NOT NULL,
    last_revision   INTEGER,
    PRIMARY KEY (dataset, image_id, first_revision)
);
COMMENT ON TABLE images IS 'one row an image and state of it; current where last_revision IS NULL';
COMMENT ON COLUMN images.image_id IS 'VOC: the file name without .jpg; folder: the path below the source, with / and ending';
COMMENT ON COLUMN images.path IS 'below datasets.source, or absolute';
COMMENT ON COLUMN images.sha256 IS 'of the file''s bytes; decides, with a version''s digest, which features are the image''s';
COMMENT ON COLUMN images.bytes IS 'file size [bytes]';
COMMENT ON COLUMN images.width IS 'after EXIF rotation [pixels]';
COMMENT ON COLUMN images.height IS 'after EXIF rotation [pixels]';
COMMENT ON COLUMN images.mode IS 'Pillow''s mode of the file: RGB, L, P, CMYK, I;16 …';
COMMENT ON COLUMN images.part IS 'VOC2007 or VOC2012 where a data set has parts';
COMMENT ON COLUMN images.split IS 'train, val or test: by the main list, else by the segmentation list, else by folder';
COMMENT ON COLUMN images.splits IS 'every list that names the image: main/train, segmentation/trainval …';
COMMENT ON COLUMN images.label IS 'image-level class: the sub-folder''s name; NULL for VOC (see objects)';
COMMENT ON COLUMN images.mask_path IS 'semantic mask, below datasets.source or absolute';
COMMENT ON COLUMN images.instance_path IS 'instance mask, below datasets.source or absolute';
COMMENT ON COLUMN images.depth_path IS 'depth map, below datasets.source or absolute';

CREATE TABLE objects (
    dataset         VARCHAR NOT NULL,
    image_id        VARCHAR NOT NULL,
    first_revision  INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    class           VARCHAR NOT NULL,
    xmin            DOUBLE NOT NULL,
    ymin            DOUBLE NOT NULL,
    xmax            DOUBLE NOT NULL,
    ymax            DOUBLE NOT NULL,
    difficult       BOOLEAN NOT NULL,
    truncated       BOOLEAN NOT NULL,
    occluded        BOOLEAN NOT NULL,
    pose            VARCHAR,
    PRIMARY KEY (dataset, image_id, first_revision, number)
);
COMMENT ON TABLE objects IS 'annotated boxes, belonging to the image row of the same first_revision';
COMMENT ON COLUMN objects.xmin IS 'as the annotation file has it: VOC counts pixels from 1, both edges inside';

CREATE TABLE versions (
    version_id      INTEGER PRIMARY KEY,
    dataset         VARCHAR NOT NULL,
    backbone        VARCHAR NOT NULL,
    digest          VARCHAR NOT NULL,
    number          INTEGER NOT NULL,
    tag             VARCHAR,
    method          VARCHAR NOT NULL,
    grid_height     INTEGER NOT NULL,
    grid_width      INTEGER NOT NULL,
    channels        INTEGER NOT NULL,
    prefix_tokens   INTEGER NOT NULL,
    recipe          JSON NOT NULL,
    provenance      JSON NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    UNIQUE (dataset, backbone, digest),
    UNIQUE (dataset, backbone, number)
);
COMMENT ON TABLE versions IS 'one row a recipe built for a data set; `number` counts v1, v2 … within (dataset, backbone)';
COMMENT ON COLUMN versions.backbone IS 'alias such as dinov2_s, or a timm name: the folder below the data set''s';
COMMENT ON COLUMN versions.digest IS 'SHA-256 of the recipe''s canonical JSON, hex; its first 12 digits name the folder';
COMMENT ON COLUMN versions.method IS 'raw, stage1/lstsq …';
COMMENT ON COLUMN versions.provenance IS 'library versions, device, command line and git revision of the newest build';

CREATE TABLE shards (
    shard_id        INTEGER PRIMARY KEY,
    version_id      INTEGER NOT NULL,
    path            VARCHAR NOT NULL UNIQUE,
    variants        VARCHAR[] NOT NULL,
    samples         INTEGER NOT NULL,
    bytes           BIGINT NOT NULL,
    sealed_at       TIMESTAMP NOT NULL
);
COMMENT ON TABLE shards IS 'one row a sealed HDF5 file';
COMMENT ON COLUMN shards.path IS 'below the root, with /';

CREATE TABLE features (
    digest              VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    shard_id            INTEGER NOT NULL,
    shard_row           INTEGER NOT NULL,
    checksum_raw        UBIGINT,
    checksum_clean      UBIGINT,
    checksum_artifact   UBIGINT,
    checksum_residual   UBIGINT,
    norm_min            FLOAT,
    norm_median         FLOAT,
    norm_max            FLOAT,
    cos_raw_clean       FLOAT,
    heldout_r2          FLOAT,
    heldout_cos         FLOAT,
    artifact_share      FLOAT,
    residual_share      FLOAT,
    seconds             FLOAT,
    PRIMARY KEY (digest, sha256)
);
COMMENT ON TABLE features IS 'one row a computed feature map, keyed by what decides its numbers: recipe digest and image bytes';
COMMENT ON COLUMN features.checksum_raw IS 'first 8 bytes, little-endian, of BLAKE2b over the stored float16 bytes; NULL where not stored';
COMMENT ON COLUMN features.norm_min IS 'smallest L2 norm of a raw patch token';
COMMENT ON COLUMN features.norm_median IS 'median L2 norm of the raw patch tokens';
COMMENT ON COLUMN features.norm_max IS 'largest L2 norm of a raw patch token';
COMMENT ON COLUMN features.cos_raw_clean IS 'mean cosine of raw and clean over patches';
COMMENT ON COLUMN features.heldout_r2 IS 'share of variance of views kept out of the fit that clean + artifact predicts';
COMMENT ON COLUMN features.heldout_cos IS 'mean cosine of prediction and raw feature over views kept out of the fit';
COMMENT ON COLUMN features.artifact_share IS 'variance of the artifact over variance of raw';
COMMENT ON COLUMN features.residual_share IS 'variance of the residual over variance of raw';
COMMENT ON COLUMN features.seconds IS 'model and method time for this image [s]';

CREATE TABLE failures (
    dataset     VARCHAR NOT NULL,
    image_id    VARCHAR,
    path        VARCHAR NOT NULL,
    sha256      VARCHAR,
    digest      VARCHAR,
    step        VARCHAR NOT NULL,
    error       VARCHAR NOT NULL,
    failed_at   TIMESTAMP NOT NULL
);
COMMENT ON TABLE failures IS 'what could not be read or computed, with the reason; the rest was done';
COMMENT ON COLUMN failures.digest IS 'the version being built; NULL for what `featstore index` found';
COMMENT ON COLUMN failures.step IS 'image, annotation, mask, split (index); read, decode, features (build)';

CREATE VIEW current_images AS
    SELECT * EXCLUDE (first_revision, last_revision) FROM images WHERE last_revision IS NULL;
COMMENT ON VIEW current_images IS 'images of each data set''s newest revision';

CREATE VIEW current_objects AS
    SELECT o.* EXCLUDE (first_revision) FROM objects o
    JOIN images i USING (dataset, image_id, first_revision) WHERE i.last_revision IS NULL;
COMMENT ON VIEW current_objects IS 'boxes of the newest revision';

CREATE VIEW stored AS
    SELECT i.dataset, v.backbone, 'v' || v.number AS version, v.digest, v.method, i.* EXCLUDE (dataset),
           s.path AS shard, f.shard_row, s.variants, f.* EXCLUDE (digest, sha256, shard_id, shard_row)
    FROM current_images i
    JOIN versions v ON v.dataset = i.dataset
    JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    JOIN shards s ON s.shard_id = f.shard_id;
COMMENT ON VIEW stored IS 'one row a current image and version that holds its features, with where they lie and their statistics';

CREATE VIEW coverage AS
    SELECT v.dataset, v.backbone, 'v' || v.number AS version, v.method, v.tag, left(v.digest, 12) AS digest,
           count(f.sha256) AS stored, count(i.image_id) AS images,
           count(x.digest) AS failed,
           avg(f.heldout_r2) AS heldout_r2, avg(f.cos_raw_clean) AS cos_raw_clean, v.created_at
    FROM versions v
    LEFT JOIN current_images i ON i.dataset = v.dataset
    LEFT JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256
    LEFT JOIN failures x ON x.digest = v.digest AND x.dataset = v.dataset AND x.sha256 = i.sha256 AND f.sha256 IS NULL
    GROUP BY v.version_id, v.dataset, v.backbone, v.number, v.method, v.tag, v.digest, v.created_at;
COMMENT ON VIEW coverage IS 'one row a version: how many of the data set''s current images it holds';

CREATE VIEW latest AS
    SELECT * FROM coverage
    QUALIFY row_number() OVER (
        PARTITION BY dataset, backbone, method ORDER BY try_cast(version[2:] AS INTEGER) DESC
    ) = 1;
COMMENT ON VIEW latest IS 'the newest version of each (dataset, backbone, method)';
