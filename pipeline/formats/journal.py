"""A journal of what was worked out, kept while the work goes on: nothing that was finished is lost with a kill.

FOLDER/WORK.PART.journal  WORK: digest of what the numbers rest on; PART: of those who share the work
one line                  JSON: key; shape and values of an int64 array, flat; check: CRC-32 of all three
"""

import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np

WHOLE = "1-of-1"  # the part that is all


class Journal:
    """Arrays of whole numbers by key, read from all parts and added to one of them.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there. Who does the whole work deletes journals of other work.
    rests_on : dict
        All that the numbers depend on besides their keys; JSON.
    part : str
        Names the file that is written.
    """

    def __init__(self, folder, rests_on, part):
        text = json.dumps(rests_on, sort_keys=True)
        work = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = Path(folder) / f"{work}.{part}.journal"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_end()
        self._values = {}
        for path in sorted(self.path.parent.glob("*.journal")):
            if path.name.startswith(work):
                self._values |= dict(read(path))
            elif part == WHOLE:
                path.unlink(missing_ok=True)

    def __len__(self):
        return len(self._values)

    def get(self, key):
        """Return the array of a key, or None."""
        return self._values.get(_text(key))

    def put(self, entries):
        """Keep some (key, array of whole numbers); the next process finds them."""
        lines = []
        for key, array in entries:
            text, values = _text(key), np.asarray(array, dtype=np.int64)
            shape, flat = list(values.shape), values.ravel().tolist()
            check = zlib.crc32(f"{text} {shape} {flat}".encode())
            lines.append(f'{{"key": {text}, "shape": {shape}, "values": {flat}, "check": {check}}}\n')
            self._values[text] = values
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _drop_torn_end(self):
        """Cut off what a killed process left of a line, so that the next one begins on its own."""
        if self.path.is_file():
            # In one step: another kill must not take the whole lines with it.
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)


def _text(key):
    return json.dumps(key, sort_keys=True)


def read(path):
    """Yield (key as JSON, array) of every line of a journal that is whole; a damaged one is passed over."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
            text, shape, values = _text(found["key"]), found["shape"], found["values"]
            if found["check"] == zlib.crc32(f"{text} {shape} {values}".encode()):
                yield text, np.array(values, dtype=np.int64).reshape(shape)
        except (ValueError, KeyError, TypeError):
            continue
