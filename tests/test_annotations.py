"""Labels, boxes and depth beside the features, held against the made data sets and torchvision's terms."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from bad_images import make_voc
from fakes import make_folder
from PIL import Image
from readable import Recipe
from torch.utils.data import DataLoader

from featstore import FeatureDataset
from featstore.build import build_version
from featstore.errors import DecodeError, NotInStoreError
from featstore.index import index_dataset
from featstore.masks import read_depth
from featstore.plan import Request


def test_labels_are_numbers_into_the_classes_of_the_whole_data_set(readable: Path) -> None:
    dogs = FeatureDataset(readable, "pets", backbone="fake", label=True, where="label = 'dogs'")
    assert dogs.classes == ("cats", "dogs")
    assert {item["label"] for item in (dogs[i] for i in range(5))} == {1}
    everything = FeatureDataset(readable, "pets", backbone="fake", label=True)
    batch = next(iter(DataLoader(everything, batch_size=10, num_workers=2)))
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [int(name.startswith("dogs")) for name in batch["image_id"]]
    with pytest.raises(NotInStoreError, match="12 of 12 images have no label"):
        FeatureDataset(readable, "voc", backbone="fake", label=True)


def test_boxes_are_those_of_the_annotation_files_in_input_pixels(readable: Path, tmp_path: Path) -> None:
    """Images are 60×40, the input 30×20; VOC's pixel n covers n − 1 to n."""
    truth = make_voc(tmp_path / "voc")
    data = FeatureDataset(readable, "voc", backbone="fake", objects=True)
    assert data.object_classes == ("dog", "person")
    batch = next(iter(DataLoader(data, batch_size=12, num_workers=1)))
    for name, objects in zip(batch["image_id"], batch["objects"], strict=True):
        expected = [[(x0 - 1) / 2, (y0 - 1) / 2, x1 / 2, y1 / 2] for _, x0, y0, x1, y1, *_ in truth.boxes[name]]
        torch.testing.assert_close(objects["boxes"], torch.tensor(expected))
        assert objects["labels"].tolist() == [0, 1]
        assert objects["difficult"].tolist() == [box[5] for box in truth.boxes[name]]


def test_boxes_of_a_crop_are_clipped_and_those_outside_left_out(readable: Path) -> None:
    """A 1×1 crop in the middle of 4×5 patches shows rows 5-10 and columns 12-18 of 20×30."""
    data = FeatureDataset(readable, "voc", backbone="fake", objects=True, crop=(1, 1), centre=True)
    assert data[0]["objects"]["boxes"].tolist() == [[0, 0, 3, 5], [0, 0, 6, 5]]
    right = FeatureDataset(readable, "voc", backbone="fake", objects=True, crop=(4, 1), seed=4)
    shown = {part.left: right[i]["objects"] for i in range(12) if (part := right.part(i))}
    assert 4 in shown
    assert shown[4]["labels"].tolist() == [1]


@pytest.mark.parametrize("mode", ["I;16", "F", "L"])
def test_depth_maps_keep_their_values(tmp_path: Path, mode: str) -> None:
    store = tmp_path / "store"
    index_dataset(store, "pets", make_folder(tmp_path / "pets", count=2))
    build_version(store, Request("pets", "fake"), Recipe())
    with pytest.raises(NotInStoreError, match="2 of 2 images have no depth map"):
        FeatureDataset(store, "pets", backbone="fake", depth=True)
    kind = {"I;16": np.uint16, "F": np.float32, "L": np.uint8}[mode]
    values = np.arange(48).reshape(6, 8).astype(kind) * kind(5)
    Image.fromarray(values).save(tmp_path / "pets" / "depth.tiff")
    with duckdb.connect(store / "manifest.duckdb") as connection:
        connection.execute("UPDATE images SET depth_path = 'depth.tiff'")
    depth = FeatureDataset(store, "pets", backbone="fake", depth=True)[1]["depth"]
    expected = torch.from_numpy(values.astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(expected, (20, 30), mode="nearest-exact")[0, 0]
    assert torch.equal(depth, expected)


def test_a_depth_map_in_colours_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "depth.png")
    with pytest.raises(DecodeError, match="one number a pixel"):
        read_depth((tmp_path / "depth.png").read_bytes())
