"""Fetch a public data set or weights: `python -m pipeline.tools.download voc2012`; without a name, list them.

reads   config/downloads.yaml, the network; with --archive files that you have already
writes  the folders that config/packs names, under data/

An interrupted download goes on where it stopped. What is there already is left alone.
"""

import hashlib
import http.client
import platform
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pipeline.core import files, settings, stage
from pipeline.core.errors import DataError, SettingsError
from pipeline.core.settings import ROOT, nearest

LIST = ROOT / "config/downloads.yaml"
PIECE = 1 << 20  # bytes that are fetched at a time
ATTEMPTS = 5  # at one address, each of which goes on where the last one stopped
PATIENCE = 60  # seconds without a byte


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a data set or weights; without it they are listed")
    parser.add_argument("--to", default="data", metavar="FOLDER", help="where it goes; config/packs looks in data")
    parser.add_argument("--archive", nargs="+", default=[], metavar="FILE", help="files that are here already")
    parser.add_argument("--keep", action="store_true", help="keep downloaded archives after they are unpacked")


def run(args):
    """Bring every file of one entry to its place."""
    known = settings.read(LIST, "downloads")
    if args.name is None:
        for name, entry in known.items():
            print(f"{name}: {', '.join(file.file for file in entry.files)}")
        return
    if args.name not in known:
        raise SettingsError("NAME", f"'{args.name}'", "a known one", nearest(args.name, known))
    entry, folder = known[args.name], Path(args.to)
    stage.log.info("terms: %s", entry.terms)
    given = {Path(path).name: Path(path) for path in args.archive}
    wanted = [file.file for file in entry.files]
    if unknown := sorted(set(given) - set(wanted)):
        raise SettingsError(
            "--archive", f"a file {unknown[0]}", f"one of {', '.join(wanted)}", "rename it, or leave it out"
        )
    missing = [file.file for file in entry.files if not (is_there(file, folder) or file.urls or file.file in given)]
    if missing:
        do = f"get it{f' at {entry.page}' if 'page' in entry else ''} and give --archive {missing[0]}"
        raise DataError(missing[0], "no address to fetch it from", "a file", do)
    for file in entry.files:
        if is_there(file, folder):
            stage.log.info("%s: is there already", ", ".join(map(str, places(file, folder).values())))
            continue
        own = file.file not in given
        path = fetch(file, folder) if own else given[file.file]
        check(file, path)
        put(file, path, folder)
        if own and args.keep:
            path.replace(folder / file.file)
        elif own:
            path.unlink()


def places(file, folder):
    """Return where the parts of a file go: dict of str, its path in the archive or "", to Path."""
    inside = file.unpacks if "unpacks" in file else {"": file.into}
    return {part.strip("/"): folder / place for part, place in inside.items()}


def is_there(file, folder):
    """Tell whether all parts of a file are in their places; they appear there whole."""
    return all(place.exists() for place in places(file, folder).values())


def fetch(file, folder):
    """Download a file, going on where an earlier run stopped; return its path, which is not yet that of its place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{file.file}.download"
    beside = files.partial(folder / file.file)
    if path.is_file():
        return path
    for url in file.urls:
        for _ in range(ATTEMPTS):
            before = _size(beside)
            try:
                receive(url, beside)
                beside.replace(path)
                return path
            except Broken as error:
                reason = str(error)
            stage.log.info("%s: %s; %.1f MB are here", url, reason, _size(beside) / 1e6)
            if _size(beside) == before:
                break  # nothing came: try another address
    do = f"mend `urls` in config/downloads.yaml, or get the file elsewhere and give --archive {file.file}"
    raise DataError(file.urls[-1], reason, file.file, do)


class Broken(Exception):
    """The network gave less than all."""


def receive(url, beside):
    """Append to a file what it lacks of an address, or write it anew if the server knows no other way."""
    start = _size(beside)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # all is here already, or more than there is
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            beside.unlink()
        raise Broken(f"status {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from None
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if answer.status == 206 and not goes_on:
            raise Broken(f"a part that begins elsewhere: {answer.headers.get('Content-Range')}")
        length = answer.headers.get("Content-Length", "")
        total, count = int(length) if length.isdecimal() else None, 0
        with beside.open("ab" if goes_on else "wb") as out:
            for piece in stage.progress(_pieces(answer), total and -(-total // PIECE), "MiB"):
                out.write(piece)
                count += len(piece)
    if total is not None and count < total:
        raise Broken(f"the connection ended {total - count} bytes too early")


def _pieces(answer):
    """Yield what comes; errors of the network, not those of the disk, become `Broken`."""
    while True:
        try:
            piece = answer.read(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from None
        if not piece:
            return
        yield piece


def _broken(error):
    return Broken(" ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def check(file, path):
    """Refuse a file of another size or checksum than is known; tell the checksum where none is known."""
    if not path.is_file():
        raise DataError(path, "no such file", f"the archive {file.file}", "check the path")
    size = path.stat().st_size
    if "bytes" in file and size != file.bytes:
        raise DataError(path, f"{size} bytes", f"{file.bytes}", _advice(path))
    if file.checksum == "unknown":
        stage.log.info("%s: no checksum is known; found sha256:%s", path, files.digest(path))
        return
    kind, digits = file.checksum.split(":")
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, kind).hexdigest()
    if not found.startswith(digits):
        raise DataError(path, f"{kind}:{found}", file.checksum, _advice(path))


def _advice(path):
    return f"delete {path} and fetch it again; if it is right, put what was found into config/downloads.yaml"


def put(file, path, folder):
    """Bring the parts of a file to their places, each whole or not at all."""
    for part, place in places(file, folder).items():
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside the place, which may lie on another disk.
        beside = files.partial(place)
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir()
            if part:
                unpack(path, beside, part, zipped=file.file.endswith(".zip"))
            else:
                shutil.copyfile(path, beside / file.file)
            found = beside / (part or file.file)
            if not found.exists():
                raise DataError(path, f"no {part} in it", "the folders that config/downloads.yaml names", _advice(path))
            found.replace(place)
            stage.log.info("%s", place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def unpack(path, folder, part, zipped):
    """Extract one folder of an archive; nothing may leave the folder it is unpacked into."""
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if _is_in(name, part)]
                if outside := [name for name in names if _leaves(name)]:
                    raise _harmful(path, outside[0])
                for name in stage.progress(names, len(names), "files"):
                    archive.extract(name, folder)
        else:
            if not hasattr(tarfile, "data_filter"):
                found, do = f"Python {platform.python_version()}", f"use another, or unpack {part} of it by hand"
                raise DataError(path, found, "3.11.4 or newer, which refuses harmful archives", do)
            with tarfile.open(path) as archive:
                archive.extraction_filter = tarfile.data_filter  # refuses what would leave the folder, links too
                for member in stage.progress(archive, None, "files"):
                    if _is_in(member.name, part):
                        archive.extract(member, folder)
    except tarfile.FilterError as error:
        raise _harmful(path, error) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, KeyError, RuntimeError) as error:
        raise DataError(path, f"a damaged archive ({error})", "a whole one", _advice(path)) from None


def _is_in(name, part):
    """Tell whether a member lies in a folder; one that leaves the archive's is let through, to be refused."""
    return _leaves(name) or PurePosixPath(name).is_relative_to(part)


def _leaves(name):
    pure = PurePosixPath(name)
    return ".." in pure.parts or pure.is_absolute()


def _harmful(path, member):
    return DataError(path, f"a member that leaves the folder ({member})", "a harmless archive", _advice(path))


def main(argv=None):
    """Run the tool; return its exit status."""
    return stage.main("pipeline.tools.download", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
