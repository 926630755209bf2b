"""The tiny run as a whole: what it leaves, the stamps that tie it together, a stage as a process."""

import subprocess
import sys

import numpy as np

from pipeline.core import files
from pipeline.core.grids import Grid
from pipeline.formats import fitted, labels, packs, tables, unaries, weights


def test_the_run_leaves_what_it_says(tiny_run):
    pack = packs.Pack(tiny_run.pack)
    tensors, stamp = weights.read(tiny_run.weights)
    assert stamp["class_names"] == list(pack.class_names)
    assert tensors["classifier.4.weight"].shape[0] == 4
    history = tables.read_history(tiny_run.history)
    assert [entry["steps"] for entry in history] == [2, 4]
    assert history[0]["heldout_miou"] is None
    assert 0 <= history[1]["heldout_miou"] <= 100
    cache = unaries.Cache([tiny_run.unaries])
    assert (cache.kind, cache.grid) == ("logits", Grid("cells", 16))
    assert cache.names == pack.names("heldout") + pack.names("val")
    result = fitted.read(tiny_run.system)
    assert len(result.curve) == 1
    assert result.settings.plain() == tiny_run.convcrf
    refined = labels.Labels([tiny_run.labels])
    assert refined.names == pack.names("val")
    for name in refined.names:
        found = refined.labels(name, pack.sample(name).truth)
        assert set(np.unique(found)) <= set(range(4))
        assert refined.attributes_of(name)["seconds"] > 0
        assert 0 <= refined.attributes_of(name)["changed"] <= 1


def test_stamps_tie_each_output_to_its_inputs(tiny_run):
    pack, cache = packs.Pack(tiny_run.pack), unaries.Cache([tiny_run.unaries])
    assert weights.read(tiny_run.weights)[1]["inputs"] == {"pack": pack.digest}
    assert cache.stores[0].stamp["inputs"] == {"pack": pack.digest, "weights": files.digest(tiny_run.weights)}
    images = {"images": ["heldout_0", "heldout_1"]}
    assert fitted.read(tiny_run.system).stamp["inputs"] == {"pack": pack.digest, "unaries": cache.digest} | images
    refined = labels.Labels([tiny_run.labels]).stamp["inputs"]
    assert refined == {"pack": pack.digest, "unaries": cache.digest, "system": files.digest(tiny_run.system)}


def test_nothing_hidden_stays(tiny_run):
    assert [path.name for path in tiny_run.folder.iterdir() if path.name.startswith(".")] == []


def test_a_stage_is_a_command(tiny_run, tmp_path):
    log = tmp_path / "refine.log"
    argv = tiny_run.argv("refine", split="test", output=tmp_path / "l.zarr", log=log)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.refine", *argv], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "found no split 'test'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert log.read_text(encoding="utf-8").splitlines()[-1].endswith(done.stderr.splitlines()[-1])
