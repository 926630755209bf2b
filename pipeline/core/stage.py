"""The frame every stage runs in: arguments, log, progress, errors, exit status."""

import argparse
import errno
import logging
import os
import shlex
import sys
import threading
import time
import traceback

from tqdm import tqdm

from pipeline.core import memory
from pipeline.core.errors import DataError, PipelineError

log = logging.getLogger("pipeline")

USER_ERROR, OUR_FAULT, INTERRUPTED = 2, 1, 130
WRITTEN = ("output", "output_system", "history", "journal", "log")  # options that name what a stage writes
SKEW = 60.0  # seconds by which clocks of two machines may differ
LINE_EVERY = 10.0  # seconds between two lines of progress in a log
_UNWRITABLE = {
    errno.ENOSPC: ("no space left", "room to write", "make room"),
    errno.EDQUOT: ("the quota used up", "room to write", "make room"),
    errno.EROFS: ("a read-only file system", "one to write to", "choose another place or mount it anew"),
    errno.EACCES: ("no permission", "a file or folder this user may open", "mend its mode or choose another place"),
    errno.EPERM: ("no permission", "a file or folder this user may open", "mend its mode or choose another place"),
}
_STARVED = ("OutOfMemoryError", "BrokenProcessPool")


def main(module, doc, add_arguments, run, argv=None):
    """Run one stage from the command line and return its exit status.

    Parameters
    ----------
    module : str
        Dotted name, "pipeline.refine"; errors begin with it.
    doc : str
        The module's docstring, shown by ``--help``.
    add_arguments : callable
        Takes the parser; one option per file or setting.
    run : callable
        Takes the parsed arguments and does the work.
    argv : list of str, optional
        Instead of the process's own arguments.

    Returns
    -------
    int
        0 when done, 2 when input or settings are at fault, 1 when this project is, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--log", metavar="FILE", help="also write plain lines to this file")
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    handlers = _log_to(None)
    _end_with_parent()
    try:
        handlers += _log_to(args.log) if args.log else []
        log.info("%s", shlex.join([*_launcher(), module, *argv]))
        _refuse_the_future(args)
        started = time.monotonic()
        run(args)
        # Of this process alone, not of those it started.
        log.info("done in %.1f s with at most %d MB of memory", time.monotonic() - started, memory.highest() >> 20)
        return 0
    except PipelineError as error:
        log.error("%s: %s", module, error)
        return USER_ERROR
    except KeyboardInterrupt:
        log.error("%s: interrupted", module)
        return INTERRUPTED
    except Exception as error:
        reason = _unwritable(error) or _starved(error)
        if reason:
            log.error("%s: %s and run the same command again", module, reason)
            return USER_ERROR
        log.error("%s: a fault of this program\n%s", module, traceback.format_exc())
        return OUR_FAULT
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def positive(text):
    """Read a whole number of at least 1, for an option of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 on")
    return int(text)


def natural(text):
    """Read a whole number of at least 0, for an option of the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 0 on")
    return int(text)


def seed(text):
    """Read a whole number from 0 to 2³² − 1, what every random generator here takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 0 to 2**32 - 1")
    return int(text)


def shard(text):
    """Read "K-of-N", K from 1 to N, as the pair (K, N)."""
    try:
        part, count = map(int, text.split("-of-"))
    except ValueError:
        part, count = 0, 0
    if not 1 <= part <= count:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected K-of-N with K from 1 to N, as in 1-of-1")
    return part, count


def progress(items, total, unit):
    """Yield from `items`; show a bar on a terminal, a line now and then in a log; `total` may be None, not known.

    Between items, memory that they freed is given back.
    """
    trim = memory.trimmer()
    terminal = sys.stderr.isatty() and _leads()
    last = time.monotonic()
    with tqdm(total=total, unit=unit, disable=not terminal, file=sys.stderr, leave=False) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            trim()
            bar.update()
            now = time.monotonic()
            if now - last >= LINE_EVERY or done == total:
                count = done if total is None else f"{done} of {total}"
                held = "" if (size := memory.resident()) is None else f", {size >> 20} MB"
                _to_files("%s %s%s", count, unit, held, also_stderr=not terminal)
                last = now


def _log_to(path):
    """Send the log to a file, or without one to stderr; return the handlers to take away again: one."""
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        if _leads():
            open(path, "w", encoding="utf-8").close()  # noqa: PTH123
        # All processes append: with a place of their own they would write over one another's lines.
        handler = logging.FileHandler(path, mode="a", encoding="utf-8")
        # A log that cannot be written, on a full disk, must not hide the error itself.
        handler.handleError = lambda record: None
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    # Of processes that torchrun started one tells how it goes, the others only what goes wrong.
    handler.setLevel(logging.INFO if _leads() else logging.WARNING)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return [handler]


def _leads():
    """Tell whether this process is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _launcher():
    """Return the words that started this process, to stand before the module's name."""
    together = os.environ.get("WORLD_SIZE", "1")
    return (
        ["python", "-m"] if together == "1" else ["torchrun", "--standalone", "--nproc-per-node", together, "-m", "--"]
    )


def _to_files(message, *values, also_stderr):
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, message, values, None)
    for handler in log.handlers:
        if record.levelno >= handler.level and (also_stderr or isinstance(handler, logging.FileHandler)):
            handler.handle(record)


def _starved(error):
    """Return that memory ran out, if that is what ended the stage, else None."""
    for one in _causes(error):
        # By names, as most stages need no torch; its CPU allocator raises a plain RuntimeError, and of a worker that
        # the system killed for memory nothing else is known than that it is gone.
        name, told = type(one).__name__, " ".join(str(one).split())[:120]
        if isinstance(one, MemoryError) or name in _STARVED or "can't allocate memory" in str(one):
            do = "use smaller batches, crops or tiles, fewer workers, or more memory"
            return f"memory: found none left ({told or name}), expected room for what is worked on; {do}"
    return None


def _unwritable(error):
    """Return why nothing could be written, if that is what ended the stage, else None."""
    for one in _causes(error):
        if isinstance(one, OSError) and one.errno in _UNWRITABLE:
            found, expected, do = _UNWRITABLE[one.errno]
            return f"{one.filename or 'the output'}: found {found}, expected {expected}; nothing was lost: {do}"
    return None


def _causes(error):
    """Yield an error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refuse_the_future(args):
    """Under Snakemake, refuse inputs that are newer than now: at the end it would throw the outputs away as older."""
    if "PIPELINE_PARENT" not in os.environ:
        return
    given = [value for name, value in vars(args).items() if name not in WRITTEN]
    for path in (one for value in given for one in (value if isinstance(value, list) else [value])):
        if isinstance(path, str) and os.path.exists(path) and os.path.getmtime(path) > time.time() + SKEW:  # noqa: PTH110, PTH204
            changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(path)))  # noqa: PTH204
            do = "set the clock right, or see docs/flow.md, on clocks that went back"
            raise DataError(path, f"last changed on {changed}, which is to come", "a time in the past", do)


def _end_with_parent():
    """Under Snakemake, end soon after it does: its rules pass its process number in PIPELINE_PARENT.

    A killed Snakemake would otherwise leave stages behind that write while the next run starts.
    """
    parent = os.environ.get("PIPELINE_PARENT", "")
    if not parent.isdecimal():
        return

    end_when(lambda: not _is_there(int(parent)))


def end_when(gone):
    """End this process soon after `gone`, asked again and again, is true."""

    def watch():
        while not gone():
            time.sleep(0.5)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def _is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
