-- featstore manifest, schema 4: denoisers of stage 2, with what they were trained on.

CREATE TABLE denoisers (
    dataset             VARCHAR NOT NULL,
    backbone            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,
    digest              VARCHAR NOT NULL,
    run                 VARCHAR NOT NULL,
    path                VARCHAR NOT NULL,
    trained_on          VARCHAR NOT NULL,
    images              INTEGER NOT NULL,
    heldout_images      INTEGER NOT NULL,
    steps               INTEGER NOT NULL,
    cosine              FLOAT,
    raw_cosine          FLOAT,
    mse                 FLOAT,
    raw_mse             FLOAT,
    position_share      FLOAT,
    raw_position_share  FLOAT,
    recipe              VARCHAR NOT NULL,
    provenance          VARCHAR NOT NULL,
    created_at          TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, backbone, number)
);
COMMENT ON TABLE denoisers IS 'one row a trained denoiser; what it is judged by are held-out images, never trained on';
COMMENT ON COLUMN denoisers.number IS 'counted from 1 within data set and backbone: d1, d2 …';
COMMENT ON COLUMN denoisers.digest IS 'SHA-256 of layout and parameters; method.denoiser in the recipe of what it cleaned';
COMMENT ON COLUMN denoisers.run IS 'SHA-256 of the training''s recipe';
COMMENT ON COLUMN denoisers.path IS 'safetensors file below the root, with /';
COMMENT ON COLUMN denoisers.trained_on IS 'recipe digest of the stage-1 version that gave the pairs (raw, clean)';
COMMENT ON COLUMN denoisers.images IS 'images trained on';
COMMENT ON COLUMN denoisers.heldout_images IS 'images it is judged by';
COMMENT ON COLUMN denoisers.steps IS 'steps taken';
COMMENT ON COLUMN denoisers.cosine IS 'mean cosine of D(raw) and clean over patches of held-out images';
COMMENT ON COLUMN denoisers.raw_cosine IS 'the same for raw, which a denoiser must beat';
COMMENT ON COLUMN denoisers.mse IS 'mean squared error of D(raw) against clean on held-out images';
COMMENT ON COLUMN denoisers.raw_mse IS 'the same for raw';
COMMENT ON COLUMN denoisers.position_share IS 'share of variance that positions explain in D(raw), on held-out images';
COMMENT ON COLUMN denoisers.raw_position_share IS 'the same for raw';
COMMENT ON COLUMN denoisers.recipe IS 'JSON: backbone, version, images, every parameter of the training';
COMMENT ON COLUMN denoisers.provenance IS 'JSON: library versions, device, command line, git revision';

CREATE TABLE denoiser_images (
    run     VARCHAR NOT NULL,
    sha256  VARCHAR NOT NULL,
    part    VARCHAR NOT NULL,
    PRIMARY KEY (run, sha256)
);
COMMENT ON TABLE denoiser_images IS 'which images a denoiser was trained on, and which it was judged by';
COMMENT ON COLUMN denoiser_images.run IS 'that of denoisers';
COMMENT ON COLUMN denoiser_images.part IS 'train or heldout';
