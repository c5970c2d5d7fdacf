"""Progress bars that can be read in a file or a pipe, too."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

SECONDS = 20  # between two lines


def progress_bar(iterable: Iterable | None = None, **options) -> tqdm:
    """A `tqdm` bar on stderr; where that is no terminal, a line now and then in place of a bar redrawn in one line."""
    if sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, **options)
    # A bar with leave=False writes no line, unless it takes long.
    delay = 0 if options.get("leave", True) else SECONDS
    return tqdm(iterable, file=_Lines(), mininterval=SECONDS, maxinterval=2 * SECONDS, delay=delay, ascii=True,
                ncols=100, **options)


class _Lines:
    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")
            self.flush()

    def flush(self) -> None:
        sys.stderr.flush()
