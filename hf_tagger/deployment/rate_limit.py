"""How often each client may ask, for `hf_tagger serve` and the log-in of `hf_tagger review`."""

import ipaddress
import time

PROXY_HELP = "address or network of the proxy in front, or several: A,B/16; X-Forwarded-For of others is not believed"
# Seconds that sums of clock times may be out by: their last bits are lost where a clock passes a power of two.
ROUNDING = 1e-6


class RateLimit:
    """A token bucket per client, kept as the one moment at which it will be full again (GCRA, ITU-T I.371).

    Our own rather than the package `limits`, whose counts in memory have no bound: clients with many addresses fill it.

    Args:
        requests: that a client may send at once, and again in the course of each period; 0: any number.
        seconds: the period.
        clients: remembered at most. Of more, who has not asked for longest is forgotten, and starts with a full bucket.
    """

    def __init__(self, requests: int, seconds: float = 60.0, clients: int = 10_000):
        self.requests, self.seconds, self.clients = requests, seconds, clients
        self._full_at: dict[str, float] = {}  # who asked last stands last

    def wait(self, scope: dict) -> float:
        """Seconds until the client of an ASGI request may ask again; 0: this request may pass, and counts."""
        if not self.requests:
            return 0.0
        client, now = client_of(scope), time.monotonic()
        full_at = max(self._full_at.pop(client, now), now)
        after = full_at + self.seconds / self.requests
        wait = after - self.seconds - now
        wait = wait if wait > ROUNDING else 0.0
        self._full_at[client] = full_at if wait else after
        if len(self._full_at) > self.clients:
            del self._full_at[next(iter(self._full_at))]
        return wait


def client_of(scope: dict) -> str:
    """The address that a request came from; of IPv6 the network, for one client has all of a /64's addresses."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a socket of this machine, or what a trusted proxy wrote
        return host[:64]
    if address.version == 4 or address.ipv4_mapped:
        return str(address.ipv4_mapped if address.version == 6 else address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def proxy_addresses(given: str) -> str:
    """Checks a list of addresses and networks, as uvicorn takes it (`forwarded_allow_ips`), where anything else would
    silently match nobody; "": none. An `argparse` type: raises ValueError."""
    for part in given.split(",") if given else ():
        ipaddress.ip_network(part.strip())
    return given
