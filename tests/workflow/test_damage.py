"""A file of the results that was damaged: the stage that reads it names it, and one command makes it again."""

import shutil
import subprocess

import h5py
import pytest
import zarr
from driver import environment, snakemake
from survival import same_arrays
from test_kills import stage_command

# What is damaged, and the log whose command reads it.
CASES = {
    "pack/embedded.h5": "cache/embedded/resnet18/0.log",
    "train/embedded/resnet18.safetensors": "cache/embedded/resnet18/0.log",
    "cache/embedded/resnet18/0.zarr": "refine/embedded/resnet18/convcrf/0.log",
    "fit/embedded/resnet18/convcrf.npz": "refine/embedded/resnet18/convcrf/0.log",
    "refine/embedded/resnet18/convcrf/0.zarr": "score/embedded/resnet18/convcrf.log",
    "score/embedded/resnet18/convcrf.h5": "aggregate/embedded.log",
}


def flip(path):
    """Change one byte of what a file or store holds; return the file."""
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        path = next((path / group.attrs["names"][-1] / "c").rglob("0"))
        while path.is_dir():
            path /= "0"
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            name = "all" if "all" in file else f"images/{file['splits/val'][0].decode()}"
            place = file[name].id.get_chunk_info(0).byte_offset + 5
    content[place] ^= 0x10
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("damaged", CASES)
def test_it_is_named_and_made_again(done, tmp_path, damaged):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder, copy_function=shutil.copy2)
    stage, log = CASES[damaged].split("/", 1)
    words, target = stage_command(done, stage, log), folder / "results" / damaged
    flip(target)
    out = words.index("--output") + 1
    words[out] = str(tmp_path / "out")
    read = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
    assert read.returncode == 2 and "Traceback" not in read.stderr, read.stderr
    last = read.stderr.splitlines()[-1]
    assert last.startswith(f"pipeline.{stage}: results/{damaged}") and "damaged" in last, read.stderr
    assert "again" in last and not (tmp_path / "out").exists()

    status, text = snakemake(folder, f"results/{damaged}", "--forcerun", f"results/{damaged}")
    assert status == 0, text
    if target.is_dir():
        same_arrays(zarr.open_group(done / "results" / damaged, mode="r"), zarr.open_group(target, mode="r"))
    elif stage == "aggregate":
        with h5py.File(done / "results" / damaged) as left, h5py.File(target) as right:
            assert (left["all"][...] == right["all"][...]).all()
    else:
        assert target.read_bytes() == (done / "results" / damaged).read_bytes()
