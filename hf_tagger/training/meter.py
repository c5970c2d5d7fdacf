"""How fast a training goes, for its progress bar."""

import math
import time


class Meter:
    """Running mean of the loss, rows per second, and the share of time spent waiting for data."""

    def __init__(self):
        self.loss, self.rows, self.waited = math.nan, 0, 0.0
        self.started = self.wait_started = time.perf_counter()

    def start_wait(self) -> None:
        self.wait_started = time.perf_counter()

    def end_wait(self) -> None:
        now = time.perf_counter()
        # The first wait starts the workers and fills their queue: that is paid once, not per step.
        if self.rows:
            self.waited += now - self.wait_started
        else:
            self.started = now

    def add(self, loss: float, rows: int) -> None:
        self.loss = loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * loss
        self.rows += rows

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.started, 1e-9)

    def summary(self) -> str:
        seconds = self.seconds
        return f"loss {self.loss:.3f}, {self.rows / seconds:.0f} rows/s, waiting {self.waited / seconds:.0%}"
