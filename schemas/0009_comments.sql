-- featstore manifest, schema 9: a meaning for every column, and for those whose meaning had grown narrower than what they hold.

COMMENT ON TABLE schema_migrations IS 'one row a schema that this manifest has been brought to; the highest number is its schema';
COMMENT ON COLUMN schema_migrations.number IS 'counted from 1';
COMMENT ON COLUMN schema_migrations.name IS 'file of the migration';
COMMENT ON COLUMN schema_migrations.applied_at IS 'UTC';

COMMENT ON COLUMN datasets.dataset IS 'name given to `featstore index`; the folder below the root';
COMMENT ON COLUMN datasets.layout IS 'how the source was read: voc, coco, folder …; `featstore datasets` lists the layouts';
COMMENT ON COLUMN datasets.source IS 'absolute folder or file, or URL, that the images were last indexed from';
COMMENT ON COLUMN datasets.mask_coding IS 'how a mask file holds its labels: index (a number a pixel), ade20k (colours of the full release), panoptic (COCO''s colours)';

COMMENT ON COLUMN revisions.dataset IS 'as in datasets';
COMMENT ON COLUMN revisions.revision IS 'counted from 1 within the data set';
COMMENT ON COLUMN revisions.created_at IS 'UTC';
COMMENT ON COLUMN revisions.source IS 'as datasets.source was then';
COMMENT ON COLUMN revisions.added IS 'images that were not there before';
COMMENT ON COLUMN revisions.changed IS 'images of which the bytes, the place or an annotation changed';
COMMENT ON COLUMN revisions.removed IS 'images that were there before';
COMMENT ON COLUMN revisions.images IS 'images that the data set had then';

COMMENT ON COLUMN images.dataset IS 'as in datasets';
COMMENT ON COLUMN images.image_id IS 'name within the data set, as its layout gives it: VOC the file name without .jpg; folder the path below the source';
COMMENT ON COLUMN images.path IS 'below datasets.source, or absolute, or a URL; a.tar::b.jpg, a.parquet::17/image, a.mat::images/12 lie inside a file';
COMMENT ON COLUMN images.mtime_ns IS 'when the file was changed last [ns since 1970]; with its size it tells whether to read it again';
COMMENT ON COLUMN images.part IS 'part of the data set, where it has such: VOC2012, a scene, a video';
COMMENT ON COLUMN images.split IS 'train, val or test, as the layout tells; NULL where it does not';
COMMENT ON COLUMN images.splits IS 'every list that names the image: main/train, segmentation/trainval …';
COMMENT ON COLUMN images.label IS 'class of the whole image: the sub-folder''s name, or what the layout''s labels say; NULL without one';
COMMENT ON COLUMN images.mask_path IS 'semantic mask, given as path is';
COMMENT ON COLUMN images.instance_path IS 'instance mask, given as path is';
COMMENT ON COLUMN images.depth_path IS 'depth map, given as path is';
COMMENT ON COLUMN images.first_revision IS 'first revision that has the image in this state';
COMMENT ON COLUMN images.last_revision IS 'last revision that has it; NULL while it is current';

COMMENT ON COLUMN objects.dataset IS 'as in datasets';
COMMENT ON COLUMN objects.image_id IS 'as in images';
COMMENT ON COLUMN objects.first_revision IS 'that of the image''s row';
COMMENT ON COLUMN objects.number IS 'counted within the image, in the order of the annotation';
COMMENT ON COLUMN objects.class IS 'as the annotation names it';
COMMENT ON COLUMN objects.xmin IS 'left edge [pixels of images.width]; from 0, but layout voc counts pixels from 1, both edges inside';
COMMENT ON COLUMN objects.ymin IS 'upper edge, as xmin';
COMMENT ON COLUMN objects.xmax IS 'right edge, as xmin';
COMMENT ON COLUMN objects.ymax IS 'lower edge, as xmin';
COMMENT ON COLUMN objects.difficult IS 'does not count in evaluation: VOC''s difficult, COCO''s crowds';
COMMENT ON COLUMN objects.truncated IS 'goes on beyond the box, as the annotation says; false where it does not say';
COMMENT ON COLUMN objects.occluded IS 'partly hidden, as the annotation says; false where it does not say';
COMMENT ON COLUMN objects.pose IS 'as the annotation says; NULL where it does not';

COMMENT ON COLUMN versions.version_id IS 'key within this manifest';
COMMENT ON COLUMN versions.dataset IS 'as in datasets';
COMMENT ON COLUMN versions.number IS 'v1, v2 … within (dataset, backbone); never given to another recipe';
COMMENT ON COLUMN versions.tag IS 'a name that the user gave; NULL without one';
COMMENT ON COLUMN versions.method IS 'raw, stage1/lstsq, stage1/field, stage2, shift-mean, position-mean, rasa, test-time-registers, imported';
COMMENT ON COLUMN versions.grid_width IS 'columns of patches, as grid_height';
COMMENT ON COLUMN versions.channels IS 'C, the width of a feature';
COMMENT ON COLUMN versions.prefix_tokens IS 'T, class and register tokens an image';
COMMENT ON COLUMN versions.recipe IS 'canonical JSON of everything that decides the numbers';
COMMENT ON COLUMN versions.created_at IS 'UTC';

COMMENT ON COLUMN shards.shard_id IS 'key within this manifest';
COMMENT ON COLUMN shards.variants IS 'data sets of maps that the file holds';
COMMENT ON COLUMN shards.codec IS 'how features are stored: none (float16), a lossless filter, int8, or both (int8+zstd)';
COMMENT ON COLUMN shards.samples IS 'N, images in it';
COMMENT ON COLUMN shards.sealed_at IS 'UTC';

COMMENT ON COLUMN features.digest IS 'as in versions';
COMMENT ON COLUMN features.sha256 IS 'as in images';
COMMENT ON COLUMN features.shard_id IS 'as in shards';
COMMENT ON COLUMN features.shard_row IS 'row n of the shard''s data sets, from 0';
COMMENT ON COLUMN features.checksum_raw IS 'first 8 bytes, little-endian, of BLAKE2b over the sample''s bytes as stored, filters undone; NULL where not stored';
COMMENT ON COLUMN features.checksum_clean IS 'as checksum_raw';
COMMENT ON COLUMN features.checksum_artifact IS 'as checksum_raw';
COMMENT ON COLUMN features.checksum_residual IS 'as checksum_raw';

COMMENT ON COLUMN failures.dataset IS 'as in datasets';
COMMENT ON COLUMN failures.image_id IS 'as in images; NULL for what belongs to no image';
COMMENT ON COLUMN failures.path IS 'the file that failed, given as images.path is';
COMMENT ON COLUMN failures.sha256 IS 'of the image''s bytes; NULL where they could not be read';
COMMENT ON COLUMN failures.error IS 'the reason, in a line';
COMMENT ON COLUMN failures.failed_at IS 'UTC';

COMMENT ON COLUMN denoisers.dataset IS 'as in datasets';
COMMENT ON COLUMN denoisers.backbone IS 'as in versions';
COMMENT ON COLUMN denoisers.created_at IS 'UTC';
COMMENT ON COLUMN denoiser_images.sha256 IS 'as in images';

COMMENT ON COLUMN builds.build_id IS 'key within this manifest';
COMMENT ON COLUMN builds.dataset IS 'as in datasets';
COMMENT ON COLUMN builds.backbone IS 'as in versions';
COMMENT ON COLUMN builds.digest IS 'as in versions';
COMMENT ON COLUMN builds.started_at IS 'UTC';
COMMENT ON COLUMN builds.wanted IS 'images asked for';
COMMENT ON COLUMN builds.computed IS 'images computed; NULL until it is finished';
COMMENT ON COLUMN builds.failed IS 'images that failed; NULL until it is finished';
COMMENT ON COLUMN builds.shards IS 'shards written; NULL until it is finished';

COMMENT ON COLUMN removed.dataset IS 'as in datasets';
COMMENT ON COLUMN removed.backbone IS 'as in versions';
COMMENT ON COLUMN removed.digest IS 'as in versions';
COMMENT ON COLUMN removed.removed_at IS 'UTC';

COMMENT ON COLUMN evaluations.dataset IS 'as in datasets';
COMMENT ON COLUMN evaluations.backbone IS 'as in versions';
COMMENT ON COLUMN evaluations.task IS 'as `featstore eval --task` names it: segmentation, knn, depth, position …';
COMMENT ON COLUMN evaluations.created_at IS 'UTC';

-- Of views: what is not a column of images, versions, features or shards, or is that of one where another has the name, too.
COMMENT ON COLUMN stored.version IS '''v'' and versions.number';
COMMENT ON COLUMN stored.shard IS 'the HDF5 file, below the root, with /';
COMMENT ON COLUMN stored.variants IS 'maps that the shard holds';
COMMENT ON COLUMN stored.grid_height IS 'rows of patches of this image''s maps, but for clean_fine';
COMMENT ON COLUMN stored.grid_width IS 'columns of patches of this image''s maps, but for clean_fine';
COMMENT ON COLUMN coverage.version IS '''v'' and versions.number';
COMMENT ON COLUMN coverage.digest IS 'first 12 hex digits of versions.digest, the name of the folder';
COMMENT ON COLUMN coverage.stored IS 'current images whose features are stored';
COMMENT ON COLUMN coverage.images IS 'current images of the data set';
COMMENT ON COLUMN coverage.failed IS 'current images that the build could not compute';
COMMENT ON COLUMN coverage.heldout_r2 IS 'mean of features.heldout_r2';
COMMENT ON COLUMN coverage.cos_raw_clean IS 'mean of features.cos_raw_clean';
COMMENT ON COLUMN latest.version IS '''v'' and versions.number';
COMMENT ON COLUMN latest.digest IS 'as in coverage';
COMMENT ON COLUMN latest.stored IS 'as in coverage';
COMMENT ON COLUMN latest.images IS 'as in coverage';
COMMENT ON COLUMN latest.failed IS 'as in coverage';
COMMENT ON COLUMN latest.heldout_r2 IS 'as in coverage';
COMMENT ON COLUMN latest.cos_raw_clean IS 'as in coverage';
