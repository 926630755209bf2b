"""The frame of a stage: exit status, the one line of an error, log, progress, end with the parent."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core import stage, workers
from pipeline.core.errors import BackendError, DataError, PipelineError, SettingsError


def start(run, *argv, options=()):
    def add_arguments(parser):
        for option in options:
            parser.add_argument(option)

    return stage.main("pipeline.example", "An example.", add_arguments, run, list(argv))


def raiser(error):
    def run(args):
        raise error

    return run


def test_done(capsys):
    seen = []
    assert start(lambda args: seen.append(args.word), "--word", "a b", options=["--word"]) == 0
    assert seen == ["a b"]
    told = capsys.readouterr()
    assert told.out == ""
    first, last = told.err.splitlines()
    assert first == "python -m pipeline.example --word 'a b'"
    assert last.startswith("done in ")


@pytest.mark.parametrize("kind", [PipelineError, SettingsError, DataError, BackendError])
def test_a_fault_of_the_input_is_one_line_and_status_2(capsys, kind):
    assert start(raiser(kind("there", "this", "that", "mend it"))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["pipeline.example: there: found this, expected that; mend it"]


def test_a_fault_of_the_program_keeps_its_traceback(capsys):
    assert start(raiser(ValueError("odd"))) == 1
    told = capsys.readouterr().err
    assert "a fault of this program\nTraceback" in told
    assert told.rstrip().endswith("ValueError: odd")


def test_an_interrupt_is_told(capsys):
    assert start(raiser(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.endswith("pipeline.example: interrupted\n")


def test_a_wrong_option_ends_with_status_2():
    with pytest.raises(SystemExit) as caught:
        start(lambda args: None, "--wrong")
    assert caught.value.code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line_and_status_2(capsys):
    def run(args):
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    assert start(run) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "found no space left, expected room to write; nothing was lost: make room" in line


def test_a_full_disk_behind_another_error_is_seen(capsys):
    def run(args):
        try:
            raise OSError(28, "No space left on device", "out.npz")
        except OSError as error:
            raise ValueError("could not save") from error

    assert start(run) == 2
    assert "pipeline.example: out.npz: found no space left" in capsys.readouterr().err


def test_another_error_of_the_system_is_no_full_disk():
    assert start(raiser(OSError(5, "Input/output error"))) == 1


def test_the_log_file_holds_plain_lines(tmp_path, capsys):
    path = tmp_path / "logs" / "example.log"
    assert start(raiser(DataError("there", "this", "that", "mend it")), "--log", str(path)) == 2
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("pipeline.example: there: found this, expected that; mend it")
    assert time.strptime(lines[0][:19], "%Y-%m-%d %H:%M:%S")
    assert "there: found this" in capsys.readouterr().err


def test_a_log_begins_anew_and_ends_with_its_stage(tmp_path):
    path, others = tmp_path / "example.log", list(stage.log.handlers)
    for _ in range(2):
        assert start(lambda args: None, "--log", str(path)) == 0
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert stage.log.handlers == others


def test_progress_tells_the_last_item_and_now_and_then_one(tmp_path, capsys, monkeypatch):
    path, seen = tmp_path / "example.log", []

    def run(args):
        seen.extend(stage.progress(iter("abc"), 3, "letters"))
        monkeypatch.setattr(stage, "LINE_EVERY", 0.0)
        seen.extend(stage.progress(iter("de"), 2, "more"))
        seen.extend(stage.progress(iter("f"), None, "unknown"))

    assert start(run, "--log", str(path)) == 0
    assert "".join(seen) == "abcdef"
    told = [line[20:] for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [re.sub(r", \d+ MB$", "", line) for line in told[1:-1]]
    assert lines == ["3 of 3 letters", "1 of 2 more", "2 of 2 more", "1 unknown"]
    assert "3 of 3 letters" in capsys.readouterr().err


def test_options_with_their_own_types():
    assert (stage.positive("3"), stage.seed("0"), stage.shard("2-of-3")) == (3, 0, (2, 3))
    assert stage.seed(str(2**32 - 1)) == 2**32 - 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((stage.positive, text) for text in ("0", "-1", "1.5", "many")),
        *((stage.seed, text) for text in ("-1", str(2**32), "x")),
        *((stage.shard, text) for text in ("0-of-1", "2-of-1", "1", "1-of-2-of-3", "a-of-b", "1-of-0")),
    ],
)
def test_options_of_the_wrong_type_are_refused(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}', expected"):
        kind(text)


CHILD = """
import sys, time
from pipeline.core import stage

def run(args):
    print("running", flush=True)
    time.sleep(120)

sys.exit(stage.main("pipeline.example", "", lambda parser: None, run, []))
"""


def test_a_stage_ends_with_the_process_named_its_parent():
    parent = subprocess.Popen(["sleep", "120"])
    environment = os.environ | {"PIPELINE_PARENT": str(parent.pid)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            assert child.stdout.readline() == b"running\n"
            assert child.poll() is None
            parent.kill()
            parent.wait()
            assert child.wait(timeout=30) == stage.INTERRUPTED
        finally:
            parent.kill()
            parent.wait()
            child.kill()


def test_under_snakemake_an_input_of_tomorrow_is_refused(tmp_path, capsys, monkeypatch):
    path = tmp_path / "pack.h5"
    path.touch()
    begun = []
    argv = ["--pack", str(path), "--output", str(tmp_path / "out")]
    monkeypatch.setenv("PIPELINE_PARENT", str(os.getpid()))
    assert start(begun.append, *argv, options=["--pack", "--output"]) == 0
    os.utime(path, (time.time() + 3600,) * 2)
    assert start(begun.append, *argv, options=["--pack", "--output"]) == 2
    assert f"{path}: found last changed on" in capsys.readouterr().err and len(begun) == 1
    argv = ["--output", str(path)]
    assert start(begun.append, *argv, options=["--output"]) == 0, "what is written anew may be of any time"
    monkeypatch.delenv("PIPELINE_PARENT")
    assert start(begun.append, "--pack", str(path), options=["--pack"]) == 0, "by hand nothing is thrown away"


def test_a_place_that_may_not_be_written_is_one_line(capsys):
    assert start(raiser(PermissionError(13, "Permission denied", "there"))) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(
        "pipeline.example: there: found no permission, expected a file or folder this user may open;"
    )
    assert "nothing was lost: mend its mode" in last


@pytest.mark.parametrize("allocate", [np.empty, torch.empty])
def test_memory_that_ran_out_is_one_line_and_status_2(capsys, allocate):
    assert start(lambda args: allocate(1 << 55)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "pipeline.example: memory: found none left" in line and line.endswith("run the same command again")


def end(opened, task):
    os._exit(9)


def test_a_worker_that_the_system_killed_is_told(capsys):
    assert start(lambda args: list(workers.results(end, [1], dict, workers=1, threads=1))) == 2
    assert "memory: found none left" in capsys.readouterr().err.splitlines()[-1]


FOLLOWER = """
import sys
from pipeline.core import stage
from pipeline.core.errors import DataError

def run(args):
    list(stage.progress("abc", 3, "letters"))
    raise DataError("there", "this", "that", "mend it")

sys.exit(stage.main("example", "", lambda parser: None, run))
"""


def test_of_several_processes_one_tells_how_it_goes_and_all_what_goes_wrong(tmp_path):
    path = tmp_path / "example.log"

    def leads(args):
        words = [sys.executable, "-c", FOLLOWER, "--log", str(path)]
        ended = subprocess.run(words, env=os.environ | {"RANK": "1"}, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (2, "example: there: found this, expected that; mend it\n")
        list(stage.progress("de", 2, "letters"))

    assert start(leads, "--log", str(path)) == 0
    told = [line[20:] for line in path.read_text(encoding="utf-8").splitlines()]
    assert told[1] == "example: there: found this, expected that; mend it"
    assert len(told) == 4 and told[2].startswith("2 of 2 letters")
