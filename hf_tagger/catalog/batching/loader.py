"""Batches from a streamed catalogue: shuffled, of similar length, decoded in workers, and resumable at any batch.

Every worker process reads the same stream of undecoded rows and forms the same batches; each collates its share of
them. So the order of batches depends on the seed and the epoch, not on the number of workers, and resuming at batch N
reads N batches of rows without decoding them.
"""

import itertools
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hf_tagger import UserError
from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import LoaderSettings


@dataclass
class CatalogLoader:
    catalog: Catalog
    split: str
    collator: Collator
    settings: LoaderSettings
    seed: int = 0
    shuffle: bool = False
    # {attribute: {tag: r}}: a row is repeated r times on average, with the largest r of its tags (repeat-factor
    # sampling, arXiv 1908.03195).
    repeat_factors: dict[str, dict[str, float]] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    drop_duplicates: bool = False

    def epoch(self, epoch: int = 0, skip_batches: int = 0) -> Iterator[dict[str, Any]]:
        """Batches of one pass over this process's rows, without the first `skip_batches`."""
        dataset = _Batches(self, epoch, skip_batches)
        workers = self.settings.num_workers
        if self.drop_duplicates:
            # Found before the workers start, who inherit them; otherwise each would read the catalogue again.
            self.catalog.duplicates(self.split)
        # Its own generator: starting an epoch must not advance the global one, which a resumed run has restored.
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None,
                            generator=torch.Generator())
        batches = _raising(iter(loader))
        return batches if self.repeat_factors or skip_batches else self._counted(batches)

    def _counted(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Counts rows for the catalogue's totals: workers have read them, and photos are decoded after they were."""
        see = self.catalog.one_pass(self.split)
        for batch in batches:
            for item in (*batch["refusals"], *batch["ids"]):
                see(item)
            yield batch

    def batches(self, epoch: int) -> Iterator[tuple[list[dict], list[Refusal]]]:
        """Uncollated batches, each with the rows that were refused while it was read."""
        order = random.Random(f"batches {self.seed} {epoch}")
        size, refusals = self.settings.batch_size, []
        pool: list[dict] = []
        for record in itertools.chain(self._records(epoch, refusals), [None]):
            if record is not None:
                pool.append(record)
            if record is None or len(pool) == size * max(1, self.settings.bucket_batches):
                for batch in self._cut(pool, order) or [[]]:
                    yield batch, list(refusals)
                    refusals.clear()
                pool = []

    def _records(self, epoch: int, refusals: list[Refusal]) -> Iterator[dict]:
        draw = random.Random(f"repeats {self.seed} {epoch}")
        stream = self.catalog.records(
            self.split, epoch=epoch, seed=self.seed, shuffle_buffer=self.settings.shuffle_buffer if self.shuffle else 0,
            rank=self.rank, world_size=self.world_size, drop_duplicates=self.drop_duplicates)
        for item in stream:
            if isinstance(item, Refusal):
                refusals.append(item)
                continue
            factor = self.repeat_factor(item["tags"]) if self.repeat_factors else 1.0
            for _ in range(int(factor) + (draw.random() < factor % 1)):
                yield item

    def repeat_factor(self, tags: dict[str, list[str] | None]) -> float:
        """How often a product with these tags is emitted, on average."""
        return max((self.repeat_factors.get(name, {}).get(tag, 1.0) for name, given in tags.items()
                    for tag in given or ()), default=1.0)

    def _cut(self, pool: list[dict], order: random.Random) -> list[list[dict]]:
        """A pool of records -> batches of products with texts of similar length, for little padding."""
        size = self.settings.batch_size
        if self.settings.bucket_batches > 1:
            pool = sorted(pool, key=lambda record: len(record["text"] or ""))
        batches = [pool[start:start + size] for start in range(0, len(pool), size)]
        if self.shuffle:
            order.shuffle(batches)
        return batches


class _Batches(IterableDataset):
    def __init__(self, loader: CatalogLoader, epoch: int, skip_batches: int):
        self.loader, self.epoch, self.skip_batches = loader, epoch, skip_batches

    def __iter__(self):
        worker = get_worker_info()
        share, shares = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            torch.set_num_threads(1)
            # The training process handles Ctrl-C, and still needs its last batches.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield from self._share(share, shares)
        except UserError as error:
            # A worker's error would arrive as a traceback.
            yield error

    def _share(self, share: int, shares: int) -> Iterator[dict[str, Any]]:
        for index, (records, stream_refusals) in enumerate(self.loader.batches(self.epoch)):
            if index < self.skip_batches or (index - self.skip_batches) % shares != share:
                continue
            with seeded(f"{self.loader.seed} {self.epoch} {index} {self.loader.rank}"):
                batch = self.loader.collator(records)
            batch["refusals"] = stream_refusals + batch["refusals"]
            yield batch


def _raising(batches: Iterator[dict[str, Any] | UserError]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@contextmanager
def seeded(key: str) -> Iterator[None]:
    """Random draws inside depend on the key alone; afterwards the global generators are as they were before."""
    states, seed = (random.getstate(), np.random.get_state(), torch.get_rng_state()), random.Random(key).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
