"""What a training leaves: its checkpoint on the way, then weights and history."""

import io
import json
import pickle
import time
from pathlib import Path

import torch

from pipeline.core.files import whole_file
from pipeline.core.stamp import same_work
from pipeline.formats import weights

CHECKPOINT_EVERY = 30.0  # seconds; and at the end of every epoch


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
        self._saved = time.monotonic()

    def read(self):
        """Return the state to go on from, or None if there is none that can be used."""
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        return content["state"] if same_work(content["stamp"], self.stamp) else None

    def write(self, state):
        """Replace the checkpoint in one step."""
        # Through memory: torch's own writer does not say why it could not write.
        content = io.BytesIO()
        torch.save({"state": state, "stamp": self.stamp}, content)
        with whole_file(self.path) as beside:
            beside.write_bytes(content.getbuffer())
        self._saved = time.monotonic()

    @property
    def due(self):
        """Whether the last one is old."""
        return time.monotonic() - self._saved > CHECKPOINT_EVERY

    def remove(self):
        """Take it away: the training is done."""
        self.path.unlink(missing_ok=True)


def write(output, history_output, tensors, history, stamp):
    """Write weights and history, the weights last: who finds them finds all."""
    with whole_file(history_output) as beside:
        lines = [json.dumps(epoch) + "\n" for epoch in history]
        Path(beside).write_text("".join(lines), encoding="utf-8")
    with whole_file(output) as beside:
        weights.write(beside, tensors, stamp)
