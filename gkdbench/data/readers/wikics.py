"""WikiCS as its ``data.json`` (Mernyei and Cangea 2020)."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of, mask_ids
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import class_labels, decoding, in_range, open_json
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Links in both directions; split k: training mask k, validation mask k, the one test mask."""
    refuse_in_worker(info.name)
    path = raw.ending("data.json")
    with decoding(path, "a readable WikiCS file"):
        stored = open_json(path, raw.text_bytes)
        labels = np.array(stored["labels"], np.int64)
        features = np.array(stored["features"], np.float32)
        links = [(node, other) for node, out in enumerate(stored["links"]) for other in out]
        train, val = np.array(stored["train_masks"], bool), np.array(stored["val_masks"], bool)
        test = np.array(stored["test_mask"], bool)
    if not len(labels) == len(features) == train.shape[-1] == val.shape[-1] == len(test):
        raise CorruptData(
            f"{path}: expected labels, features and masks of one length, got different lengths; fetch it again"
        )
    with decoding(path, "a readable WikiCS file"):
        ends = np.array(links, np.int64).reshape(-1, 2)
    class_labels(path, labels)
    src, dst = in_range(path, ends, 0, len(labels), "node of a link").T
    official: dict[str, NumpyArray] = {}
    for k in range(len(train)):
        masks = {"train": train[k], "val": val[k], "test": test}
        official |= {f"wikics-20/{k}/{part}": mask_ids(mask, len(labels)) for part, mask in masks.items()}
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(src, dst, len(labels), undirected=True),
        features=features_of(features),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        official=official,
        note=info.note,
    )
