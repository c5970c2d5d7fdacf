"""Photos behind URLs that fsspec opens (s3://, hf://, …)."""

import io
import os

import fsspec


class RemoteFile(io.BytesIO):
    """A remote file, fetched when it is first read: a row that is skipped costs no request."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self._fetched = url, False

    def read(self, size: int | None = -1) -> bytes:
        self._fetch()
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._fetch()
        return super().seek(offset, whence)

    def __reduce__(self):
        return type(self), (self.url,)

    def _fetch(self) -> None:
        if not self._fetched:
            self._fetched = True
            with fsspec.open(self.url, "rb") as file:
                self.write(file.read())
            super().seek(0)
