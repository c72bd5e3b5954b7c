-- featstore manifest, schema 8: what stored features are worth on tasks with labels.

CREATE TABLE evaluations (
    dataset       VARCHAR NOT NULL,
    backbone      VARCHAR NOT NULL,
    digest        VARCHAR NOT NULL,
    variant       VARCHAR NOT NULL,
    task          VARCHAR NOT NULL,
    metric        VARCHAR NOT NULL,
    value         DOUBLE,
    low           DOUBLE,
    high          DOUBLE,
    interval      VARCHAR,
    seeds         INTEGER NOT NULL,
    settings      VARCHAR NOT NULL,
    train_images  INTEGER NOT NULL,
    val_images    INTEGER NOT NULL,
    created_at    TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, backbone, digest, variant, task, metric, settings)
);
COMMENT ON TABLE evaluations IS 'one row a figure that `featstore eval` measured; the same settings again take its place';
COMMENT ON COLUMN evaluations.digest IS 'recipe of the version whose features were measured';
COMMENT ON COLUMN evaluations.variant IS 'raw, clean …';
COMMENT ON COLUMN evaluations.task IS 'segmentation, knn, depth, position or discovery';
COMMENT ON COLUMN evaluations.metric IS 'mIoU, aAcc, mAcc (shares); RMSE [m], AbsRel, delta1 …; variance explained, MIC; CorLoc, whole image';
COMMENT ON COLUMN evaluations.value IS 'the figure; of several seeds their mean';
COMMENT ON COLUMN evaluations.low IS 'lower end of its 95 % interval; NULL without one';
COMMENT ON COLUMN evaluations.high IS 'upper end';
COMMENT ON COLUMN evaluations.interval IS 'what the interval is over: seeds (t), images (bootstrap), images (jackknife)';
COMMENT ON COLUMN evaluations.seeds IS 'how many times it was measured, each with a seed of its own; 1 where nothing is drawn';
COMMENT ON COLUMN evaluations.settings IS 'JSON: every parameter of the task, and a digest of the images';
COMMENT ON COLUMN evaluations.train_images IS 'images that the task learned from; 0 where it learns nothing';
COMMENT ON COLUMN evaluations.val_images IS 'images that it was judged by';
