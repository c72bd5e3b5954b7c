"""Crops: the same part of everything, drawn by (seed, epoch, index) alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from readable import FINE, INPUT
from torch.utils.data import DataLoader

from featstore import FeatureDataset
from featstore.crops import Crop, Part
from featstore.errors import InputError

SIZE = (2, 3)


def test_every_variant_image_and_mask_show_the_same_part(readable: Path) -> None:
    options = {
        "backbone": "fake",
        "variants": ("raw", "artifact", "residual", "clean_fine"),
        "image": True,
        "prefix": True,
    }
    whole = FeatureDataset(readable, "pets", **options)
    data = FeatureDataset(readable, "pets", **options, crop=SIZE, seed=3)
    places = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for index in range(len(data)):
            item, full = data[index], whole[index]
            part = data.part(index)
            assert part is not None
            y, x = part.top, part.left
            places.add((y, x))
            for name in ("raw", "artifact", "residual"):
                assert torch.equal(item[name], full[name][:, y : y + 2, x : x + 3])
            assert torch.equal(item["clean_fine"], full["clean_fine"][:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 6])
            assert torch.equal(item["image"], full["image"][:, 5 * y : 5 * y + 10, 6 * x : 6 * x + 18])
            assert torch.equal(item["prefix"], full["prefix"])
    assert places == {(y, x) for y in range(3) for x in range(3)}


def test_a_residual_that_is_worked_out_and_a_mask_are_cropped_too(readable: Path) -> None:
    options = {"backbone": "fake", "variants": ("residual",), "mask": True, "where": "mask_path IS NOT NULL"}
    whole = FeatureDataset(readable, "voc", **options)
    data = FeatureDataset(readable, "voc", **options, crop=SIZE, centre=True, verify=True)
    for index in range(len(data)):
        assert torch.equal(data[index]["residual"], whole[index]["residual"][:, 1:3, 1:4])
        assert torch.equal(data[index]["mask"], whole[index]["mask"][5:15, 6:24])


def test_single_items_batches_and_workers_crop_alike(readable: Path) -> None:
    data = FeatureDataset(readable, "pets", backbone="fake", variants=("raw",), crop=SIZE)
    loader = DataLoader(data, batch_size=4, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    shown = []
    for epoch in range(3):
        data.set_epoch(epoch)  # the workers that run already hear of it
        batches = torch.cat([batch["raw"] for batch in loader])
        assert torch.equal(batches, torch.stack([data[index]["raw"] for index in range(len(data))]))
        shown.append(batches.clone())
    assert not torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2])


def test_places_are_uniform_over_samples_and_epochs() -> None:
    crop = Crop(3, 3, (5, 6))
    counts = Counter((p.top, p.left) for e in range(50) for p in (crop.part(e, i) for i in range(240)))
    assert len(counts) == 12
    expected = 50 * 240 / 12
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 31.3  # chi-squared, 11 degrees: p = .001


def test_a_part_is_carried_over_to_other_grids_as_a_resize_would() -> None:
    """A column ramp resized by Pillow's nearest neighbour shows which cells a crop covers, to half a cell."""
    for old, new in ((37, 74), (37, 518), (16, 37), (37, 37), (14, 9)):
        for start in range(old - 4):
            part = Part(start, start, 4, 4, (old, old))
            rows, columns = part.on((new, new))
            assert rows == columns
            assert rows.stop - rows.start == Part(0, 0, 4, 4, (old, old)).on((new, new))[0].stop
            assert abs(rows.start - start * new / old) <= 1
            assert 0 <= rows.start < rows.stop <= new
    ramp = Image.fromarray(np.arange(37, dtype=np.uint8)[None].repeat(37, 0)).resize(
        (518, 518), Image.Resampling.NEAREST
    )
    assert set(np.asarray(ramp)[0, Part(5, 5, 4, 4, (37, 37)).on((518, 518))[1]].tolist()) == {5, 6, 7, 8}


def test_a_crop_that_does_not_fit_is_refused(readable: Path) -> None:
    with pytest.raises(InputError, match="5x5 patches does not fit the grid of 4x5"):
        FeatureDataset(readable, "pets", backbone="fake", crop=(5, 5))


def test_the_made_sizes_are_whole_multiples() -> None:
    assert FINE == (8, 10)
    assert INPUT == (20, 30)
