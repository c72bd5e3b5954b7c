-- featstore manifest, schema 10: figures of tasks know by how much they differ from another's on the same images.

ALTER TABLE evaluations ADD COLUMN baseline VARCHAR;
ALTER TABLE evaluations ADD COLUMN difference DOUBLE;
ALTER TABLE evaluations ADD COLUMN difference_low DOUBLE;
ALTER TABLE evaluations ADD COLUMN difference_high DOUBLE;
COMMENT ON COLUMN evaluations.baseline IS 'version and variant measured beside it, with which it was compared; NULL for the first';
COMMENT ON COLUMN evaluations.difference IS 'value less the baseline''s, on the same images and seeds';
COMMENT ON COLUMN evaluations.difference_low IS 'lower end of the 95 % interval of the difference, paired, over what interval names';
COMMENT ON COLUMN evaluations.difference_high IS 'upper end';
