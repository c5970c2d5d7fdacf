"""What requests to `hf_tagger serve` may cost."""

from dataclasses import dataclass, field

from hf_tagger.model.handler import MAX_PHOTOS


def _limit(default: float, help: str):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Limits:
    """Each is an option of the command, `--max_NAME`; what exceeds it gets the status that its help names."""

    products: int = _limit(128, "products of a request (413)")
    photos: int = _limit(MAX_PHOTOS, "photos of a product (422)")
    photo_megapixels: float = _limit(64, "of a photo; a JPEG of many scans counts several times (422)")
    request_megapixels: float = _limit(128, "of all photos of a request (422)")
    body_mb: float = _limit(8, "MiB of a request (413)")
    header_kb: float = _limit(32, "KiB of a request's headers and address (431)")
    depth: int = _limit(8, "how deep JSON is nested (400)")
    tags: int = _limit(1000, "tags of a product in an answer, the best ones")
    seconds: float = _limit(30, "for headers to come, and for a body to come and be answered (408, 503)")
    stop_seconds: float = _limit(20, "from SIGTERM until what is not answered yet is dropped")
    connections: int = _limit(1000, "clients at once; further ones are turned away")
    client_requests: int = _limit(0, "requests to /tags of one client a minute, 0: any number (429)")
    waiting_mb: float = _limit(256, "MiB of requests under way; further ones get 503 and are told to try again")
