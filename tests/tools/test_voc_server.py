"""The archive for VOC's test server: names, sizes, indices and colours; what it refuses."""

import io
import tarfile

import builders
import numpy as np
import pytest
from observe import said
from PIL import Image

from pipeline.core.sample import Sample
from pipeline.formats import label_archives, packs
from pipeline.formats import labels as label_stores
from pipeline.tools import voc_server

NAMES = ("2008_000006", "2008_000011")
CLASSES = tuple(f"class {number}" for number in range(21))


@pytest.fixture
def made(tmp_path, rng):
    """A pack of VOC's classes with two images without labels, their answers in two shards, and these answers."""
    splits = {"train": (), "heldout": (), "val": NAMES}
    described = {"class_names": CLASSES, "categories": {}, "splits": splits, "blocks": {}}
    answers = {name: rng.integers(21, size=(30, 20 + place)).astype(np.uint8) for place, name in enumerate(NAMES)}
    with packs.writer(tmp_path / "pack.h5", **described, trimap="void", stamp={}) as put:
        for name, answer in answers.items():
            image = np.zeros((*answer.shape, 3), np.uint8)
            put(packs.encode(Sample(name, image, np.full(answer.shape, 255, np.uint8)), 21))
    digest, stamp = packs.Pack(tmp_path / "pack.h5").digest, builders.stamp("refine") | {"inputs": {}, "settings": {}}
    for place, (name, answer) in enumerate(answers.items()):
        described = {"class_names": CLASSES, "pack_digest": digest, "stamp": stamp}
        with label_stores.writer(tmp_path / f"{place}.zarr", names=[name], **described) as out:
            out.put(name, answer, {})
    return tmp_path, answers


def run(folder, **changed):
    options = {"labels": [folder / "0.zarr", folder / "1.zarr"], "pack": [folder / "pack.h5"], "split": ["val"]}
    options |= {"competition": ["comp6"], "output": [folder / "out.tgz"]} | changed
    return voc_server.main([str(word) for key, values in options.items() for word in (f"--{key}", *values)])


def test_the_archive_has_what_the_server_wants(made):
    folder, answers = made
    assert run(folder) == 0
    content = (folder / "out.tgz").read_bytes()
    with tarfile.open(folder / "out.tgz") as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}
    assert list(files) == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in NAMES]
    for (name, answer), data in zip(answers.items(), files.values(), strict=True):
        image = Image.open(io.BytesIO(data))
        assert image.mode == "P" and np.array_equal(np.asarray(image), answer), name
        # Aeroplane and void as VOC's own files have them.
        assert image.getpalette()[3:6] == [128, 0, 0] and image.getpalette()[-3:] == [224, 224, 192]
    assert run(folder, output=[folder / "other.tgz"]) == 0
    assert (folder / "other.tgz").read_bytes() == content


def test_an_image_without_labels_is_named(made, capsys):
    folder, _ = made
    assert run(folder, labels=[folder / "0.zarr"]) == 2
    assert f"found no image {NAMES[1]}, expected every image of the split" in said(capsys)
    assert not (folder / "out.tgz").exists()


def test_other_classes_are_refused(tmp_path, capsys):
    pack = builders.pack(tmp_path / "pack.h5")
    cache = builders.unaries(tmp_path / "unaries.zarr", pack)
    builders.labels(tmp_path / "0.zarr", pack, cache, sharpen=0.2)
    assert run(tmp_path, labels=[tmp_path / "0.zarr"]) == 2
    assert "found 4 classes, expected VOC's 21" in said(capsys)


def test_what_was_not_written_as_it_should_be_is_found(made, monkeypatch, capsys):
    folder, _ = made
    whole = label_archives.write

    def rolled(path, entries, colours):
        whole(path, ((name, np.roll(one, 1)) for name, one in entries), colours)

    monkeypatch.setattr(label_archives, "write", rolled)
    assert run(folder) == 2
    assert f"{NAMES[0]}.png: found other labels than were written" in said(capsys)
    assert not (folder / "out.tgz").exists()
