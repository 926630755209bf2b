"""What a training leaves: its checkpoint on the way, then weights and history."""

import hashlib
import io
import json
import time
from pathlib import Path

import torch

from pipeline.core.files import whole_file
from pipeline.core.stage import log, progress
from pipeline.core.stamp import same_work
from pipeline.formats import weights

CHECKPOINT_EVERY = 30.0  # seconds; and at the end of an epoch
# Writing may take a tenth of the time, for large networks whose epochs are short; below so many seconds all it takes.
SHARE, SHORT = 0.1, 0.5
CHECKSUM = hashlib.sha256().digest_size  # bytes, behind what torch saved


class Checkpoint:
    """Where a killed training goes on: hidden beside the output, gone when that is whole.

    Parameters
    ----------
    output : str or Path
        The weights that the training makes.
    stamp : dict
        A checkpoint of other work is not used.
    """

    def __init__(self, output, stamp):
        self.path, self.stamp = Path(output).parent / f".{Path(output).name}.checkpoint", stamp
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._saved, self._took = time.monotonic(), 0.0

    def read(self):
        """Return the state to go on from, or None if there is none that can be used."""
        if not self.path.is_file():
            return None
        if not _is_whole(self.path):
            log.warning("%s: damaged, its checksum is another; the training starts anew", self.path)
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            return content["state"] if same_work(content["stamp"], self.stamp) else None
        except (
            Exception
        ) as error:  # of another version it may raise anything, and whatever it is, the training starts anew
            log.warning("%s: cannot be read (%s); the training starts anew", self.path, type(error).__name__)
            return None

    def write(self, state):
        """Replace the checkpoint in one step."""
        begun = time.monotonic()
        # Through memory: torch's own writer does not say why it could not write.
        content = io.BytesIO()
        torch.save({"state": state, "stamp": self.stamp}, content)
        with whole_file(self.path) as beside, beside.open("wb") as file:
            file.write(content.getbuffer())
            file.write(hashlib.sha256(content.getbuffer()).digest())
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def due(self, ended):
        """Whether it is time for another; `ended` says that an epoch has."""
        age, least = time.monotonic() - self._saved, 0.0 if self._took < SHORT else self._took / SHARE
        return age >= max(least, 0.0 if ended else CHECKPOINT_EVERY)

    def remove(self):
        """Take it away: the training is done."""
        self.path.unlink(missing_ok=True)


def _is_whole(path):
    """Tell whether a file ends with the SHA-256 of what stands before it; torch does not look at its own checksums."""
    with path.open("rb") as file:
        content, left = hashlib.sha256(), path.stat().st_size - CHECKSUM
        while left > 0:
            part = file.read(min(left, 1 << 20))
            content.update(part)
            left -= len(part)
        return file.read() == content.digest()


def run_to_end(training, steps, checkpoint, *, leads=True):
    """Run a training to its end, from the checkpoint if that can be used; log every epoch, save on the way.

    Parameters
    ----------
    training : algorithms.backprop.Training
    steps : iterator
        What `training.run` returned; nothing of it was taken yet.
    checkpoint : Checkpoint
    leads : bool
        Whether this process, of several that train together, is the one that writes.
    """
    state = checkpoint.read()
    if state is not None:
        training.load_state_dict(state)
        log.info("goes on at step %d of %d", training.done, training.steps)
    told = len(training.history)
    for _ in progress(steps, training.steps - training.done, "steps"):
        ended = len(training.history) > told
        if ended:
            told += 1
            log.info("%s", json.dumps(training.history[-1]))
        if leads and checkpoint.due(ended):
            checkpoint.write(training.state_dict())


def write(output, history_output, tensors, history, stamp):
    """Write weights and history, the weights last: who finds them finds all."""
    with whole_file(history_output) as beside:
        lines = [json.dumps(epoch) + "\n" for epoch in history]
        Path(beside).write_text("".join(lines), encoding="utf-8")
    with whole_file(output) as beside:
        weights.write(beside, tensors, stamp)
