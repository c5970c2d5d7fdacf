"""Bulk tagging by actors of Ray, on one machine or a cluster. They are told which rows to tag; photos and tags never
pass through Ray's object store."""

import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from hf_tagger import UserError
from hf_tagger.catalog.reading.pieces import Piece
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment import shards
from hf_tagger.deployment.storage import open_folder
from hf_tagger.deployment.worker import Work, Worker

# So many actors may die of the same rows, or as they open the model, before it is taken for the cause.
DEATHS = 3
# Ray kills an actor where the machine runs out of memory, and does not call that the actor's death.
DIED = (RayActorError, OutOfMemoryError)
OBJECT_STORE_BYTES = 75 << 20  # Ray's least


class Actor:
    """A `Worker` in a process of Ray's. It is opened by a call: what fails then is told as it was raised."""

    def open(self, work: Work, gpu: bool) -> tuple[list[dict], str]:
        device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
        self.worker = Worker(work, device)
        return self.worker.attributes, self.worker.fingerprint

    def tag(self, folder: str, piece: Piece) -> int | None:
        """The number of products; None where another worker has the piece."""
        count = next(self.worker.tag(open_folder(folder), [piece], wait=False), None)
        if count is None:
            time.sleep(shards.LOOK)
        return count


class Actors(AbstractContextManager):
    """Used as a `Worker` is. An actor that dies is replaced, and its piece is done again.

    Args:
        count: of actors (default: as many as there is room for), each with `num_cpus` and `num_gpus`.
        address: of a running cluster (default: `RAY_ADDRESS`); without one, Ray is started here, and ended by `close`.

    Raises UserError where Ray does not start, no actor fits, or the model cannot be opened.
    """

    def __init__(self, work: Work, count: int | None = None, num_cpus: float = 1, num_gpus: float = 0,
                 address: str | None = None):
        self.work, self.gpu = work, num_gpus > 0
        self.attributes, self.fingerprint = None, None
        self.idle, self.calls, self.died_opening = [], {}, 0
        start_ray(address, None if count is None else count * num_cpus, None if count is None else count * num_gpus)
        there = ray.cluster_resources()
        room = [there.get(name, 0) // each for name, each in (("CPU", num_cpus), ("GPU", num_gpus)) if each]
        if count is None and min(room) < 1:
            self.close()
            raise ConfigError(f"no actor of {num_cpus:g} CPUs and {num_gpus:g} GPUs fits: there are "
                              f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}")
        self._new = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0)(Actor).remote
        for _ in range(count or int(min(room))):
            self._start()
        while not self.idle:
            list(self._ended())

    def tag(self, folder: Path, pieces: Sequence[Piece]) -> Iterator[int]:
        """Yields the number of products of each piece as it is done. Ends when all are done, whoever does them."""
        there = set(shards.done(folder, pieces))
        waiting, deaths, lost = deque(piece for piece in pieces if piece not in there), Counter(), []
        while waiting or any(piece for _, piece in self.calls.values()):
            while self.idle and waiting:
                actor, piece = self.idle.pop(), waiting.popleft()
                self.calls[actor.tag.remote(str(folder), piece)] = actor, piece
            for piece, ended in self._ended():
                deaths[piece] += isinstance(ended, DIED)
                if isinstance(ended, int):
                    yield ended
                elif deaths[piece] >= DEATHS:
                    lost.append(f"{piece.file}, {piece.rows} rows from row {piece.first + 1}")
                elif not shards.is_done(folder, piece):
                    waiting.append(piece)
        if lost:
            raise UserError(f"{DEATHS} actors died of each of these rows, and all others are done: {'; '.join(lost)}. "
                            "Ray's logs say why; --resume tries again.")

    def close(self) -> None:
        ray.shutdown()

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self) -> None:
        actor = self._new()
        self.calls[actor.open.remote(self.work, self.gpu)] = actor, None

    def _ended(self) -> Iterator[tuple[Piece, int | Exception | None]]:
        """The pieces of calls that have ended meanwhile, each with what became of it."""
        ready, _ = ray.wait([*self.calls], timeout=shards.LOOK)
        for call in ready:
            actor, piece = self.calls.pop(call)
            try:
                found = ray.get(call)
            except DIED as error:
                self._start()
                self.died_opening += piece is None
                if self.died_opening >= DEATHS:
                    raise UserError(f"{DEATHS} actors died as they opened {self.work.model}: {error}") from error
                if piece is not None:
                    yield piece, error
                continue
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from error
                raise
            self.idle.append(actor)
            if piece is not None:
                yield piece, found
                continue
            attributes, fingerprint = found
            if self.fingerprint not in (None, fingerprint):
                raise UserError(f"{self.work.model} is not the same model on all machines")
            self.attributes, self.fingerprint, self.died_opening = attributes, fingerprint, 0


def start_ray(address: str | None, cpus: float | None, gpus: float | None) -> None:
    """Joins a cluster, or starts Ray with so many processors (default: all) here. It reports nothing to anyone. Its
    ports, which are open to all interfaces, ask for the token that it leaves in ~/.ray."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address, log_to_driver=False, logging_level="error")
            return
        ray.init("local", num_cpus=cpus and -int(-cpus // 1), num_gpus=gpus and -int(-gpus // 1),
                 include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, log_to_driver=False,
                 logging_level="error")
    except Exception as error:  # Ray raises that, too
        raise UserError(f"Ray cannot be had at {address or 'this machine'}: {error} (a machine that is too busy: "
                        "`ray start --head` first, and --address auto)") from error
