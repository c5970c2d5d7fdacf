"""Dynamic batching: products of many requests share the runs of a model; none waits for company that is not coming."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hf_tagger.deployment.engines import Engine
from hf_tagger.deployment.limits import Limits
from hf_tagger.model.handler import count_photos, decode_product
from hf_tagger.model.images import PixelBudget
from hf_tagger.model.products import ProductError

WAIT_SECONDS = 0.005
REQUEST_BYTES, PRODUCT_BYTES = 16 * 2**10, 4 * 2**10  # that one holds beside its body and photos, about

logger = logging.getLogger(__name__)


class Overloaded(RuntimeError):
    """What waits would fill more memory than it may."""


@dataclass
class _Item:
    """A product of a request; `tagged` gets its tags, or what is wrong with it, on the event loop's thread."""

    product: Any
    options: dict[str, Any]
    reading: dict[str, Any]
    tagged: asyncio.Future


class Batcher:
    """Threads read and decode products; one thread runs the model on up to `batch_size` of those that are ready, on
    fewer where they have more than two photos each.

    A batch starts with what is ready. Only while further products are being read does it wait for them, and then no
    longer than WAIT_SECONDS: a lone client is answered at once.

    Args:
        num_workers: threads that read photos.
        observe: called with the size of each batch and the seconds it took.
    """

    def __init__(self, engine: Engine, limits: Limits, batch_size: int = 32, num_workers: int = 2,
                 allow_urls: bool = False, observe: Callable[[int, float], None] = lambda size, seconds: None):
        self.engine, self.limits, self.batch_size = engine, limits, batch_size
        self.allow_urls, self.observe = allow_urls, observe
        self.products = self.bytes = 0  # under way, on the event loop's thread
        self._reading = 0  # products that are not ready yet
        self._lock = threading.Lock()
        self._unread: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        # Daemons: a photo in hand keeps no process from ending.
        self._readers = [threading.Thread(target=self._read, name="read", daemon=True) for _ in range(num_workers)]
        self._thread = threading.Thread(target=self._run, name="tag", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """To be called on the event loop that `tag` is called on."""
        self._loop = asyncio.get_running_loop()
        for thread in (*self._readers, self._thread):
            thread.start()

    async def stop(self) -> bool:
        """Ends the model's thread, after what is ready was tagged. Returns whether it did within a second."""
        self._ready.put(None)
        await asyncio.to_thread(self._thread.join, 1.0)
        return not self._thread.is_alive()

    async def tag(self, products: Sequence[Any], options: dict[str, Any],
                  place: "Place") -> list[list[dict] | Exception]:
        """Products of a request -> the tags of each, or what is wrong with it: ProductError, or any other exception
        that tagging it raised.

        Raises Overloaded.
        """
        photos = sum(min(count_photos(product), self.limits.photos) for product in products)
        place.take(len(products) * PRODUCT_BYTES + photos * self.engine.photo_bytes)
        reading = {"allow_urls": self.allow_urls, "max_pixels": int(self.limits.photo_megapixels * 1e6),
                   "budget": PixelBudget(int(self.limits.request_megapixels * 1e6))}
        items = [_Item(product, options, reading, self._loop.create_future()) for product in products]
        self.products += len(items)
        self._now_reading(len(items))
        try:
            for item in items:
                self._unread.put(item)
            return await asyncio.gather(*(item.tagged for item in items))
        finally:
            self.products -= len(items)

    def _now_reading(self, change: int) -> None:
        with self._lock:
            self._reading += change

    def _read(self) -> None:
        while True:
            item = self._unread.get()
            error = None if item.tagged.cancelled() else self._prepare(item)
            self._now_reading(-1)  # before it is ready, or the model would wait for what it has
            if error is not None:
                self._deliver([(item, error)])
            elif not item.tagged.cancelled():
                self._ready.put(item)

    def _prepare(self, item: _Item) -> Exception | None:
        try:
            product = decode_product(item.product, self.allow_urls, self.limits.photos)
            item.product = self.engine.preprocess(product, **item.reading)
        except ProductError as error:
            return error
        except Exception as error:
            logger.error("a product could not be read", exc_info=error)
            return error

    def _run(self) -> None:
        while batch := self._next_batch():
            wanted = [item for item in batch if not item.tagged.cancelled()]
            if wanted:
                start = time.perf_counter()
                results = self._tag(wanted)
                self.observe(len(wanted), time.perf_counter() - start)
                self._deliver(list(zip(wanted, results, strict=True)))

    def _next_batch(self) -> list[_Item]:
        item = self._ready.get()
        until = time.monotonic() + WAIT_SECONDS
        batch: list[_Item] = []
        photos = 0
        while item is not None:
            batch.append(item)
            photos += len(item.product["photos"])
            if len(batch) == self.batch_size or photos >= 2 * self.batch_size:
                return batch
            try:
                item = self._ready.get(timeout=max(0.0, until - time.monotonic()) if self._reading > 0 else 0)
            except queue.Empty:
                return batch
        if batch:
            self._ready.put(None)
        return batch

    def _tag(self, batch: Sequence[_Item]) -> list:
        try:
            return self.engine.tag([item.product for item in batch], [item.options for item in batch])
        except Exception as error:
            if len(batch) > 1:  # one product must not spoil it for the others: each is tried by itself
                return [self._tag([item])[0] for item in batch]
            logger.error("a product could not be tagged", exc_info=error)
            return [error]

    def _deliver(self, answered: list[tuple[_Item, Any]]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._hand_out, answered)
        except RuntimeError:  # the loop was stopped by force
            pass

    def _hand_out(self, answered: list[tuple[_Item, Any]]) -> None:
        for item, result in answered:
            if not item.tagged.done():  # cancelled with its request
                item.tagged.set_result(result)


class Place:
    """The memory that a request takes until it is answered, in bytes: a context manager.

    Raises Overloaded where all requests together would take more than may wait.
    """

    def __init__(self, batcher: Batcher):
        self.batcher, self.bytes = batcher, 0

    def take(self, count: int) -> None:
        if self.batcher.bytes + count > self.batcher.limits.waiting_mb * 2**20:
            raise Overloaded
        self.batcher.bytes += count
        self.bytes += count

    def __enter__(self) -> "Place":
        self.take(REQUEST_BYTES)
        return self

    def __exit__(self, *_) -> None:
        self.batcher.bytes -= self.bytes
