"""Shares the pieces of a catalogue among workers that know of each other only by the files in the output folder.

The plan is written first. A worker claims a piece with a file that only one can create, and keeps that file young while
it works; a claim of a process that is gone, or that has not been touched for a minute, is taken over. So any number of
workers may begin, end or die at any time, on this machine or on others that see the folder.

On a disk, a shard that has its name is done. In an object store one is done when its mark is there, which is written
after it. Should two workers do a piece there, the later shard replaces one with the same rows. In a repository of the
Hub, where a claim would be a commit, nothing is claimed: one worker is enough, or Ray, which gives no piece to two.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import psutil

from hf_tagger.catalog.reading.pieces import Piece
from hf_tagger.deployment import storage

PLAN, CLAIMS, MARKS = "plan.json", "claims", "done"
# Seconds between two signs of life, after which without one a claim is void, and between two looks at others' claims.
BEAT, VOID, LOOK = 10.0, 60.0, 0.2


def write_plan(folder: Path, pieces: Sequence[Piece]) -> None:
    storage.write(folder / PLAN, json.dumps([asdict(piece) for piece in pieces], indent=1))


def read_plan(folder: Path) -> list[Piece]:
    return [Piece(**piece) for piece in json.loads((folder / PLAN).read_text(encoding="utf-8"))]


def describe(pieces: Sequence[Piece]) -> str:
    """What tells a plan from others."""
    told = blake2b("".join(piece.fingerprint for piece in pieces).encode(), digest_size=8).hexdigest()
    return f"{sum(piece.rows for piece in pieces)} rows, {told}"


def shard_path(folder: Path, piece: Piece) -> Path:
    """Where a piece's tags are, once they are complete."""
    return folder / f"part-{piece.id}.parquet"


def mark(shard: Path) -> None:
    """Makes a shard that is complete count."""
    if storage.is_store(shard):
        storage.write(_mark(shard), "")


def is_done(folder: Path, piece: Piece) -> bool:
    return storage.exists(_mark(shard_path(folder, piece)))


def done(folder: Path, pieces: Sequence[Piece]) -> list[Piece]:
    marks = {piece: _mark(shard_path(folder, piece)) for piece in pieces}
    there = storage.names(next(iter(marks.values())).parent) if marks else set()
    return [piece for piece, path in marks.items() if path.name in there]


def _mark(shard: Path) -> Path:
    return shard.parent / MARKS / shard.name if storage.is_store(shard) else shard


def claimed(folder: Path, pieces: Sequence[Piece], wait: bool = True) -> Iterator[Piece]:
    """Pieces that this worker is to do, each claimed until the next is asked for. Ends when all are done, whoever does
    them: a piece whose worker dies comes up again. Without `wait`, it ends after one look at each."""
    if storage.is_repository(folder):
        yield from (piece for piece in pieces if not is_done(folder, piece))
        return
    if not storage.is_store(folder):
        (folder / CLAIMS).mkdir(exist_ok=True)
    left = list(pieces)
    while left:
        waiting = []
        for piece in left:
            if is_done(folder, piece):
                continue
            claim = folder / CLAIMS / piece.id
            if not _take(claim):
                waiting.append(piece)
                continue
            try:
                with _kept_young(claim):
                    # Another may have done it between the first look and the claim.
                    if not is_done(folder, piece):
                        yield piece
            finally:
                claim.unlink(missing_ok=True)
        left = waiting if wait else []
        if left:
            time.sleep(LOOK)


def tidy(folder: Path) -> None:
    """Removes what workers that died have left; once all is done."""
    for path in folder.glob("*.unfinished"):
        path.unlink(missing_ok=True)
    storage.remove_folder(folder / CLAIMS)


def _take(claim: Path) -> bool:
    """Whether the claim is now ours."""
    try:
        _create(claim)
    except FileNotFoundError:  # another has found all done, and has tidied up
        return False
    except FileExistsError:
        if not _void(claim):
            return False
        # Of several that find it void only one can rename it. (Should that have become a new claim meanwhile, or where
        # nothing can be renamed, two workers may do one piece: the same rows under the same name.)
        try:
            if storage.is_store(claim):
                claim.unlink()
            else:
                os.rename(claim, stale := claim.with_suffix(f".{uuid.uuid4().hex}"))
                stale.unlink()
            _create(claim)
        except (FileNotFoundError, FileExistsError):
            return False
    return True


def _create(claim: Path) -> None:
    owner = {"host": socket.gethostname(), "process": os.getpid(), "started": psutil.Process().create_time()}
    storage.create(claim, json.dumps(owner))


def _void(claim: Path) -> bool:
    try:
        age, text = storage.age(claim), claim.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    try:
        owner = json.loads(text)
        if owner["host"] != socket.gethostname():
            return age > VOID
        process = psutil.Process(owner["process"])
        # Ray leaves the dead unburied for a while.
        gone = process.create_time() != owner["started"] or process.status() == psutil.STATUS_ZOMBIE
        return gone or age > VOID
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError):  # killed before it was written
        return age > VOID


@contextmanager
def _kept_young(claim: Path) -> Iterator[None]:
    """Touches a claim as long as its work goes on."""
    over = threading.Event()

    def beat() -> None:
        with suppress(OSError):
            while not over.wait(BEAT):
                storage.touch(claim)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
