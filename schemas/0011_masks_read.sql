-- featstore manifest, schema 11: masks that are as they were are not read again.

ALTER TABLE images ADD COLUMN masks_read BIGINT;
COMMENT ON COLUMN images.masks_read IS 'hash of name, size and time of the masks when they were read last; NULL: read them again';

DROP VIEW current_images;
CREATE VIEW current_images AS
    SELECT * EXCLUDE (first_revision, last_revision, masks_read) FROM images WHERE last_revision IS NULL;
COMMENT ON VIEW current_images IS 'images of each data set''s newest revision';
