import pytest

from hf_tagger.deployment import rate_limit
from hf_tagger.deployment.rate_limit import RateLimit, client_of, proxy_addresses


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    class Clock:
        now = 1000.0

    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: Clock.now)
    return Clock


def of(host):
    return {"client": (host, 1)}


def test_a_bucket_empties_at_once_and_fills_over_the_period(clock):
    limit = RateLimit(4, seconds=60)
    assert [limit.wait(of("a")) for _ in range(6)] == [0, 0, 0, 0, 15, 15]  # what is refused does not count
    assert limit.wait(of("b")) == 0
    clock.now += 14
    assert limit.wait(of("a")) == 1
    clock.now += 1
    assert [limit.wait(of("a")) for _ in range(2)] == [0, 15]
    clock.now += 1000
    assert [limit.wait(of("a")) for _ in range(5)] == [0, 0, 0, 0, 15]


@pytest.mark.parametrize("requests", [1, 3, 7])
def test_a_clock_that_passes_a_power_of_two_refuses_nobody(clock, requests):
    for tick in range(200):
        clock.now = 32768 - 60 + tick * 0.31  # the last bits of what is added here are lost
        limit = RateLimit(requests)
        assert [limit.wait(of(f"192.0.2.{tick}")) for _ in range(requests)] == [0.0] * requests
        assert limit.wait(of(f"192.0.2.{tick}")) == pytest.approx(60 / requests, abs=1e-3)


def test_no_number_of_clients_takes_more_memory_than_was_said(clock):
    limit = RateLimit(1, clients=3)
    for host in "abcadefg":  # "a" asked again, in vain, and is forgotten last of the first three
        limit.wait(of(host))
        assert len(limit._full_at) <= 3
    assert limit.wait(of("g")) > 0 and limit.wait(of("a")) == 0


@pytest.mark.parametrize(("host", "client"), [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"), ("", ""), ("x" * 1000, "x" * 64),
])
def test_who_counts_as_one_client(host, client):
    assert client_of(of(host)) == client


def test_a_client_without_an_address_is_one():
    assert client_of({"client": None}) == client_of({}) == ""


@pytest.mark.parametrize("given", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.1,"])
def test_proxies_are_addresses_and_networks(given):
    assert proxy_addresses("") == ""
    assert proxy_addresses("10.0.0.1, 10.1.0.0/16,::1") == "10.0.0.1, 10.1.0.0/16,::1"
    with pytest.raises(ValueError):
        proxy_addresses(given)
