"""The client behind a proxy: whose header is believed, how far, and that nobody chooses an address that counts."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from linkis_ecm.gateway.http.peers import FORWARDED, HOPS, Peers
from linkis_ecm.process.addresses import counted_as

PROXIES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]
BEHIND = Peers(PROXIES)


@pytest.mark.parametrize(
    ("remote", "value", "client"),
    [
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "192.0.2.7:4711", "192.0.2.7"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("fd00::1", "192.0.2.7", "192.0.2.7"),
        # What the client has written itself stands on the left of what the proxy has seen.
        ("10.0.0.1", "203.0.113.1, 198.51.100.2, 192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "203.0.113.1, 192.0.2.7, 10.0.0.2, 10.0.0.3", "192.0.2.7"),
        # A stranger is no proxy, whatever it says.
        ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
        ("2001:db8::1", "203.0.113.1", "2001:db8::1"),
        # All of them proxies: a call from within.
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        # What is no address: the nearest proxy that did not say.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, 10.0.0.2, _hidden", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7,", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.256", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::1", "2001:db8::1"),
        ("", "192.0.2.7", ""),
        ("unix", "192.0.2.7", "unix"),
    ],
)
def test_a_header_counts_from_a_trusted_proxy_alone_and_from_its_right(remote: str, value: str, client: str) -> None:
    assert BEHIND.client(remote, {"X-FORWARDED-FOR": value}) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('proto=https; For="[2001:db8::1]:4711" ;by=10.0.0.1', "2001:db8::1"),
        ("for=203.0.113.1, for=192.0.2.7;proto=http, for=10.0.0.2", "192.0.2.7"),
        ("for=192.0.2.7, by=10.0.0.1", "10.0.0.1"),
        ("xfor=192.0.2.7", "10.0.0.1"),
        ('for="192.0.2.7', "10.0.0.1"),
        ("for=unknown", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(value: str, client: str) -> None:
    assert Peers(PROXIES, FORWARDED).client("10.0.0.1", {"FORWARDED": value}) == client


def test_the_header_that_the_proxy_does_not_set_is_the_clients_and_is_not_read() -> None:
    headers = CIMultiDict({"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=203.0.113.1"})
    assert BEHIND.client("10.0.0.1", headers) == "192.0.2.7"
    assert Peers(PROXIES, FORWARDED).client("10.0.0.1", headers) == "203.0.113.1"


def test_lines_of_one_header_are_one_list() -> None:
    headers = CIMultiDict([("x-forwarded-for", "203.0.113.1"), ("X-Forwarded-For", "192.0.2.7")])
    assert BEHIND.client("10.0.0.1", headers) == "192.0.2.7"


def test_no_more_proxies_than_a_bound_are_looked_through() -> None:
    chain = ", ".join(["192.0.2.7"] + ["10.0.0.2"] * HOPS)
    assert BEHIND.client("10.0.0.1", {"X-FORWARDED-FOR": chain}) == "10.0.0.2"


@given(
    st.text(max_size=200),
    st.ip_addresses().filter(lambda a: not any(a in n for n in PROXIES if n.version == a.version)),
)
def test_whatever_a_client_writes_it_is_the_address_that_the_proxy_has_seen(
    written: str, seen: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    peers = Peers(PROXIES)
    honest = peers.client("10.0.0.1", {"X-FORWARDED-FOR": str(seen)})
    assert peers.client("10.0.0.1", {"X-FORWARDED-FOR": f"{written}, {seen}"}) == honest
    # Without proxies the header changes nothing at all.
    assert Peers().client(str(seen), {"X-FORWARDED-FOR": written}) == Peers().client(str(seen), {})


def test_a_client_with_a_network_of_ipv6_is_counted_once() -> None:
    assert counted_as("2001:db8::1") == counted_as("2001:db8::ffff:1") == "2001:db8::/64"
    assert counted_as("2001:db8:0:1::1") != counted_as("2001:db8::1")
    assert counted_as("192.0.2.7") == "192.0.2.7"
    assert counted_as("unix") == "unix"
    assert counted_as("::1") == "::1"
    assert counted_as("::ffff:192.0.2.7") == "::ffff:192.0.2.7"
