"""Labels: one system's answer for many images, in one Zarr store or several shards.

STORE             attributes: class_names, pack_digest, stamp, digest, names
STORE/NAME        (H W) uint8 class; attributes: seconds (of refining, warm), changed (share of pixels whose
                  label differs from the unary's), sha256; of systems that minimise an energy that of the labels and
                  a bound of all energies (energy, bound)
"""

from pipeline.core.errors import DataError
from pipeline.formats import stores

FORMAT = "edgewise labels 1"


def writer(path, *, names, class_names, pack_digest, stamp):
    """Return a context that yields a `stores.Writer`."""
    attributes = {"class_names": list(class_names), "pack_digest": pack_digest}
    return stores.writer(path, format_name=FORMAT, names=names, attributes=attributes, stamp=stamp)


class Labels(stores.Shards):
    """All shards of the labels of one system, open for reading."""

    def __init__(self, paths):
        super().__init__(paths, FORMAT, made_by="refine", what="labels")

    def labels(self, name, truth):
        """Return the labels (H, W) uint8 of one image, of the size of its truth."""
        array, _ = self.read(name)
        if array.shape != truth.shape:
            raise DataError(
                f"{self.store_of(name).path}, image {name}",
                f"labels of {array.shape}",
                f"{truth.shape} as in the pack",
                "run `refine` again",
            )
        return array
