import gzip
import struct
import sys

import pytest
import torch
from sklearn.datasets import load_digits

from manymax.data.digits import read_idx
from manymax.data.registry import create_task


def write_idx(path, array, *, code=8):
    content = struct.pack(f">BBBB{array.dim()}I", 0, 0, code, array.dim(), *array.shape)
    content += bytes(array.flatten().tolist())
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(4)
    data = {}
    for part, count, end in (("train", 12, ""), ("t10k", 5, ".gz")):
        data[part] = torch.randint(256, (count, 28, 20)), torch.randint(10, (count,))
        data[part][1][0] = 9
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", data[part][0])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", data[part][1])
    return tmp_path, data


def test_scikit_learns_images_are_all_there_once():
    task = create_task("digits")
    (train, train_labels), (held_out, labels) = task.examples("train"), task.examples("validation")
    source = load_digits()
    assert len(train) == 1438
    assert len(held_out) == 359
    assert torch.equal(held_out[1, 0] * 16, torch.tensor(source.images[9]).float())
    assert torch.equal(train[4, 0] * 16, torch.tensor(source.images[5]).float())
    assert labels.tolist() == source.target[4::5].tolist()
    assert sorted([*labels.tolist(), *train_labels.tolist()]) == sorted(source.target.tolist())
    assert float(train.min()) == 0
    assert float(train.max()) == 1
    assert task.model_options == {"image": (1, 8, 8), "patch": 2, "num_classes": 10}


def test_stretched_images_are_the_same_images():
    plain, task = create_task("digits"), create_task("digits", side=16)
    (images, labels), (stretched, same) = plain.held_out(), task.held_out()
    assert stretched.shape == (359, 1, 16, 16)
    assert torch.equal(labels, same)
    # Half-pixel centres: a pixel between two of the image is 3/4 of the nearer one and 1/4 of the other.
    near, far = images[:, 0, 2, 3], images[:, 0, 2, 4]
    upper = 0.75 * near + 0.25 * far
    lower = 0.75 * images[:, 0, 3, 3] + 0.25 * images[:, 0, 3, 4]
    torch.testing.assert_close(stretched[:, 0, 5, 7], 0.75 * upper + 0.25 * lower)
    assert task.model_options == {"image": (1, 16, 16), "patch": 2, "num_classes": 10}
    assert torch.equal(create_task("digits", side=8).held_out()[0], images)
    with pytest.raises(ValueError, match="side: expected at least 1, got 0"):
        create_task("digits", side=0)


def test_images_keep_their_labels_in_a_batch():
    task = create_task("digits")
    inputs, targets = task.batch("train", 0, 100)
    label = {tuple(image.flatten().tolist()): int(y) for image, y in zip(*task.examples("train"), strict=True)}
    assert [label[tuple(image.flatten().tolist())] for image in inputs] == targets.tolist()


def test_mnist_files_plain_and_packed(folder):
    path, data = folder
    task = create_task("digits", path=str(path))
    for split, part in (("train", "train"), ("validation", "t10k")):
        images, labels = task.examples(split)
        assert images.shape == (len(data[part][0]), 1, 28, 20)
        torch.testing.assert_close(images[:, 0] * 255, data[part][0].float())
        assert torch.equal(labels, data[part][1])
    assert task.model_options == {"image": (1, 28, 20), "patch": 4, "num_classes": 10}


def test_missing_files_are_named(folder):
    path, _ = folder
    with pytest.raises(FileNotFoundError, match=r"path: no folder .*nowhere"):
        create_task("digits", path=str(path / "nowhere"))
    (path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"path: no file .*t10k-labels-idx1-ubyte or"):
        create_task("digits", path=str(path)).batch("train", 0, 1)


def test_unequal_counts(folder):
    path, data = folder
    write_idx(path / "train-labels-idx1-ubyte", data["train"][1][:-1])
    with pytest.raises(ValueError, match="path: expected as many labels as images, got 11 and 12"):
        create_task("digits", path=str(path)).examples("train")


def test_broken_idx_files(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"\0\0\x08\x01", b"\0\0\x08\x02\0\0\0\x01", b"not an idx file", b"\0\0\x08\x01\0\0\0\x05abcd"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="path: expected"):
            read_idx(path, 1)
    write_idx(path, torch.arange(4), code=9)
    with pytest.raises(ValueError, match="path: expected an IDX file of unsigned bytes with 1 dims"):
        read_idx(path, 1)
    packed = tmp_path / "file.gz"
    for content in (b"not packed", gzip.compress(bytes(1000))[:-9]):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match=r"path: expected a gzip file, got .*file.gz"):
            read_idx(packed, 1)
    write_idx(path, torch.arange(4))
    assert read_idx(path, 1).tolist() == [0, 1, 2, 3]


def test_without_scikit_learn_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'manymax\[compare\]'"):
        create_task("digits").batch("train", 0, 1)
