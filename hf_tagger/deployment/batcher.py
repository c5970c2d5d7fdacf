"""Dynamic batching: products of many requests share the runs of a model; none waits for company that is not coming."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hf_tagger.deployment.engines import Engine
from hf_tagger.model.handler import decode_product
from hf_tagger.model.products import ProductError

WAIT_SECONDS = 0.005

logger = logging.getLogger(__name__)


class Overloaded(RuntimeError):
    """More products wait than may."""


@dataclass
class _Item:
    """A product of a request; `tagged` gets its tags, or what is wrong with it, on the event loop's thread."""

    product: Any
    options: dict[str, Any]
    tagged: asyncio.Future
    prepared: dict[str, Any] | None = None


class Batcher:
    """Threads read and decode products; one thread runs the model on up to `batch_size` of those that are ready.

    A batch starts with what is ready. Only while further requests are being read does it wait for them, and then no
    longer than WAIT_SECONDS: a lone client is answered at once.

    Args:
        max_waiting: products that may be under way at once; more are refused.
        observe: called with the size of each batch and the seconds it took.
    """

    def __init__(self, engine: Engine, batch_size: int = 32, max_waiting: int = 128, num_workers: int = 2,
                 allow_urls: bool = False, observe: Callable[[int, float], None] = lambda size, seconds: None):
        self.engine, self.batch_size, self.max_waiting = engine, batch_size, max_waiting
        self.allow_urls, self.observe = allow_urls, observe
        self.waiting = 0  # products of admitted requests, on the event loop's thread
        self._reading = 0  # of these, the ones that are not ready yet
        self._lock = threading.Lock()
        self._ready: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="read")
        self._thread = threading.Thread(target=self._run, name="tag", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """To be called on the event loop that `submit` is called on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the threads, after what is ready was tagged."""
        self._ready.put(None)
        await asyncio.to_thread(self._thread.join)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _now_reading(self, change: int) -> None:
        with self._lock:
            self._reading += change

    def _prepare(self, item: _Item) -> None:
        error = None
        try:
            product = decode_product(item.product, self.allow_urls)
            item.prepared = self.engine.preprocess(product, allow_urls=self.allow_urls)
        except ProductError as found:
            error = found
        except Exception as found:
            logger.error("a product could not be read", exc_info=found)
            error = found
        self._now_reading(-1)  # before it is ready, or the model would wait for what it has
        if error is None:
            self._ready.put(item)
        else:
            self._deliver([(item, error)])

    def _run(self) -> None:
        while batch := self._next_batch():
            start = time.perf_counter()
            results = self._tag(batch)
            self.observe(len(batch), time.perf_counter() - start)
            self._deliver(list(zip(batch, results, strict=True)))

    def _next_batch(self) -> list[_Item]:
        item = self._ready.get()
        until = time.monotonic() + WAIT_SECONDS
        batch: list[_Item] = []
        while item is not None:
            batch.append(item)
            if len(batch) == self.batch_size:
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
            return self.engine.tag([item.prepared for item in batch], [item.options for item in batch])
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


class Ticket:
    """A place for a request, whose products are not known yet, until it is answered: a context manager.

    Raises Overloaded where there is none.
    """

    def __init__(self, batcher: Batcher):
        self.batcher, self.count, self.unread = batcher, 0, 0
        self._take(1)
        self.unread = 1
        batcher._now_reading(1)

    def _take(self, count: int) -> None:
        if self.batcher.waiting + count > self.batcher.max_waiting:
            raise Overloaded
        self.batcher.waiting += count
        self.count += count

    async def tag(self, products: Sequence[Any], options: dict[str, Any]) -> list[list[dict] | Exception]:
        """Products of a request -> the tags of each, or what is wrong with it: ProductError, or any other exception
        that tagging it raised.

        Raises Overloaded.
        """
        if not products:
            return []
        batcher, loop = self.batcher, asyncio.get_running_loop()
        self._take(len(products) - 1)
        batcher._now_reading(len(products) - self.unread)
        self.unread = 0
        items = [_Item(product, options, loop.create_future()) for product in products]
        for item in items:
            batcher._pool.submit(batcher._prepare, item)
        return await asyncio.gather(*(item.tagged for item in items))

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_) -> None:
        self.batcher.waiting -= self.count
        self.batcher._now_reading(-self.unread)
