"""Network weights: our own files (safetensors with a stamp) and those a user brings, named as by torchvision.

Nothing read here can run code: pickles are opened for plain tensors only.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from pipeline.core.errors import DataError

CHECKSUM = "sha256"  # in the stamp as the file has it
BACKBONE = "backbone."
# In classification files, trained for ImageNet's classes.
CLASSIFIERS = tuple(BACKBONE + name for name in ("fc.", "fc8.", "classifier."))
COUNTER = "num_batches_tracked"  # of batch norm; older files lack it, and nothing here needs it
WRAPPERS = ("state_dict", "model", "model_state_dict")
CAFFE = re.compile(r"(backbone\.)?conv1_1\.weight$")
CAFFE_FILES = ("00b39a1b",)  # VGG-16 of Caffe under torchvision's names
DOWNLOAD = re.compile(r"-([0-9a-f]{8})\.(pth|pt|safetensors)$")


def write(path, tensors, stamp):
    """Write weights to exactly `path`; equal arguments give equal bytes.

    Parameters
    ----------
    path : str or Path
    tensors : dict of str to Tensor
        A state dict; any dtypes, shapes and devices.
    stamp : dict
        What the weights came from; anything JSON can hold.
    """
    # Cloned because safetensors refuses tensors that share memory. Written by ourselves because its own
    # writer makes files that only their owner may read.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # In one text, as safetensors writes several in any order.
    text = json.dumps(stamp | {CHECKSUM: _digest(plain, stamp)}, sort_keys=True)
    Path(path).write_bytes(safetensors.torch.save(plain, {"stamp": text}))


def read(path):
    """Read what `write` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, shapes and dtypes as written.
    stamp : dict

    Raises
    ------
    DataError
        If the file is absent, damaged, or not one of ours.
    """
    tensors, metadata = _read_safetensors(path)
    stamp = _stamp(path, metadata)
    if stamp.pop(CHECKSUM, None) != _digest(tensors, stamp):
        found, do = "a damaged file (its checksum is another)", "run the stage that made it again"
        raise DataError(path, found, "weights as they were written", do)
    return tensors, stamp


def read_stamp(path):
    """Read the stamp of what `write` wrote and leave the tensors, unchecked; errors as for `read`."""
    stamp = _stamp(path, _read_safetensors(path, tensors=False)[1])
    return {key: value for key, value in stamp.items() if key != CHECKSUM}


def _digest(tensors, stamp):
    """Return the SHA-256 of the stamp and of all names, dtypes, shapes and numbers."""
    content = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def _stamp(path, metadata):
    try:
        return json.loads(metadata["stamp"])
    except (KeyError, ValueError):
        advice = "give weights from elsewhere as a network's `given` file"
        raise DataError(path, "no stamp", "weights written by this pipeline", advice) from None


def read_for(path, class_names):
    """Read one of our own files and refuse it unless it was trained for these classes; as `read` otherwise."""
    tensors, stamp = read(path)
    if tuple(stamp["class_names"]) != class_names:
        raise DataError(path, f"classes {stamp['class_names']}", "those of the pack", "train on this pack")
    return tensors, stamp


def read_foreign(path):
    """Read a weight file from elsewhere: ``.safetensors``, or else what ``torch.save`` wrote.

    A wrapper (``state_dict``, ``model``, ``model_state_dict``) and the prefix ``module.`` are taken off.
    Where the name ends in a checksum as torchvision's do (``resnet18-f37072fd.pth``), the file must bear it
    out.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict of str to Tensor
        On the CPU, shapes and dtypes as in the file.

    Raises
    ------
    DataError
        If the file is absent or damaged, holds objects other than tensors, or no tensors at all.
    """
    path = Path(path)
    _check_download(path)
    held = _read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)
    while isinstance(held, dict) and (wrapper := next((key for key in WRAPPERS if key in held), None)):
        held = held[wrapper]
    named = held.items() if isinstance(held, dict) else ()
    tensors = {
        str(name).removeprefix("module."): value.detach() for name, value in named if isinstance(value, torch.Tensor)
    }
    if not tensors:
        expected = "a state dict, bare or under " + ", ".join(WRAPPERS)
        raise DataError(path, "no named tensors", expected, "save the network's state_dict() and give that")
    return tensors


def read_start(path, scaling):
    """Read a weight file from elsewhere for a network whose images are scaled so; see the two functions around."""
    tensors = read_foreign(path)
    check_channels(tensors, scaling, path)
    return tensors


def check_channels(tensors, scaling, where):
    """Refuse weights that Caffe trained, on 8-bit BGR, for a network that would be fed RGB, and the other way round.

    Shapes do not tell; known are Caffe's names of layers, and the checksum of a file that has torchvision's.

    Parameters
    ----------
    tensors : dict of str to Tensor
        As `read_foreign` returned them.
    scaling : Settings
        `channels` "rgb" or "bgr".
    where : str or Path
    """
    stated = DOWNLOAD.search(Path(where).name)
    known = stated and stated[1]
    caffe = any(CAFFE.match(name) for name in tensors) or known in CAFFE_FILES
    wants = "bgr" if caffe else "rgb" if known else None
    if wants not in (None, scaling.channels):
        feed = "[0.48108, 0.45752, 0.40787], std: [0.0039216, 0.0039216, 0.0039216]"
        rgb = "[0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
        raise DataError(
            where,
            f"weights {'of Caffe, trained on' if caffe else 'trained on'} {wants.upper()} images",
            f"{scaling.channels.upper()} as in the network's settings",
            f"set scaling to channels: {wants}, mean: {feed if caffe else rgb}",
        )


@dataclass(frozen=True)
class Match:
    """How a file's tensors met a network's, by name, each in the order of network or file.

    `matched` were loaded; `missing` are the network's alone, counters of batch norm aside; `unexpected` are
    the file's alone; `mismatched` are in both, differ in shape and were not loaded.
    """

    matched: tuple
    missing: tuple
    unexpected: tuple
    mismatched: tuple

    def report(self):
        """Say it in one line: the counts, and the first few names of what did not match."""
        parts = [f"{len(self.matched)} tensors loaded"]
        for word in ("missing", "unexpected", "mismatched"):
            names = getattr(self, word)
            listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            parts.append(f"{len(names)} {word} ({listed})" if names else f"none {word}")
        return "; ".join(parts)


def load_into(network, tensors, where, least=0.9):
    """Load the tensors that fit `network` by name and shape, if enough of its backbone is among them.

    In a classification file (no name begins with ``backbone.``) all but the classifier is taken as backbone.
    A head trained for another number of classes is mismatched and stays as it was.

    Parameters
    ----------
    network : nn.Module
        Its backbone's names begin with ``backbone.``.
    tensors : dict of str to Tensor
        As `read` and `read_foreign` return them.
    where : str or Path
        The file they came from, for the error.
    least : float
        Share of the backbone's tensors, those of the network or of the file, whichever are more, that must
        match. The file's count because a ResNet-18 would find all its own tensors in a ResNet-34's file.

    Returns
    -------
    Match

    Raises
    ------
    DataError
        If fewer match; `network` is then untouched.
    """
    own = network.state_dict()
    brought, dropped = _as_of(network, tensors)
    shared = [name for name in own if name in brought]
    matched = [name for name in shared if own[name].shape == brought[name].shape]
    fitting, wanted, offered = (_backbone_count(names) for names in (matched, own, brought))
    if fitting < least * max(wanted, offered):
        found = f"{fitting} backbone tensors that fit, of {wanted} in the network and {offered} in the file"
        advice = "set architecture, depth and width as the file needs them; nothing was loaded"
        raise DataError(where, found, f"at least {least:.0%}", advice)
    network.load_state_dict({name: brought[name] for name in matched}, strict=False)
    return Match(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in brought and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in brought if name not in own) + dropped,
        mismatched=tuple(name for name in shared if own[name].shape != brought[name].shape),
    )


def _as_of(network, tensors):
    """Name a file's tensors as the network's; return them, and the names of what is left of a classifier."""
    if not any(name.startswith(BACKBONE) for name in tensors):
        tensors = {BACKBONE + name: tensor for name, tensor in tensors.items()}
    if hasattr(network, "adapted"):
        tensors = network.adapted(tensors)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIERS)}
    return kept, tuple(name.removeprefix(BACKBONE) for name in tensors if name not in kept)


def _backbone_count(names):
    return sum(name.startswith(BACKBONE) and not name.endswith(COUNTER) for name in names)


def _check_there(path):
    if not Path(path).is_file():
        raise DataError(path, "no such file", "a weight file", "check the path")


def _check_download(path):
    _check_there(path)
    stated = DOWNLOAD.search(path.name)
    if stated is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(stated[1]):
        advice = "the download is damaged, fetch it again (or rename the file if its ending is no checksum)"
        raise DataError(path, f"SHA-256 {digest[:8]}…", f"{stated[1]}… as in the name", advice)


def _read_safetensors(path, tensors=True):
    _check_there(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        advice = "write or fetch it again"
        raise DataError(path, f"a damaged or foreign file ({error})", "safetensors", advice) from None


def _read_pickle(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way at all
        found, advice = f"an unreadable file ({type(error).__name__})", "fetch or save it again"
        if "GLOBAL" in str(error):  # torch's word for an object that only code of its own could build
            found, advice = "objects other than tensors", "save its state_dict() alone where you trust it"
        raise DataError(path, found, "plain tensors as torch.save writes them", advice) from None
