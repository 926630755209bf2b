"""Labels as PNGs of indices in one archive, as benchmarks' servers take them."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core.errors import DataError


def write(path, entries, colours):
    """Write an archive to exactly `path`: .tar, packed by gzip; equal labels give equal bytes.

    Parameters
    ----------
    path : str or Path
    entries : iterable of (str, ndarray of shape (H, W), uint8)
        Paths in the archive, and labels.
    colours : ndarray of shape (256, 3), uint8
    """
    with (
        Path(path).open("wb") as file,
        # Without a name and a time in it.
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, labels in entries:
            image, content = Image.new("P", labels.shape[::-1]), io.BytesIO()
            image.putdata(labels.ravel())
            image.putpalette(colours.tobytes())
            image.save(content, "PNG")
            entry = tarfile.TarInfo(name)
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)


def check(path, entries, told):
    """Read an archive again; DataError, of a file called `told`, unless it holds these entries alone, in order."""
    with tarfile.open(path, "r:gz") as archive:
        for name, labels in entries:
            entry = archive.next()
            if entry is None or entry.name != name:
                raise DataError(told, f"{entry and entry.name} after what came before", name, "write it again")
            with Image.open(archive.extractfile(entry)) as image:
                if image.mode != "P" or not np.array_equal(np.asarray(image), labels):
                    raise DataError(f"{told}, {name}", "other labels than were written", "the same", "write it again")
        if archive.next() is not None:
            raise DataError(told, "more files than were written", "one for each image", "write it again")
