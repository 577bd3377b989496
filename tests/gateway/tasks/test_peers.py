"""The client behind a proxy: whose header is believed, how far, and that nobody chooses an address that counts."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from linkis_ecm.gateway.http.peers import FORWARDED, HOPS, MAX_READ, X_FORWARDED_FOR, Peers
from linkis_ecm.process.ports.addresses import counted_as

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
        # The examples of RFC 7239, 4, 6.3 and 7.1.
        ('for="_gazonk"', "10.0.0.1"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ('for=192.0.2.43, for="[2001:db8:cafe::17]", for=unknown', "10.0.0.1"),
        ('for=_hidden, for=_SEVKISEK;host="a"', "10.0.0.1"),
        ('for="192.0.2.43:47011",for="10.0.0.2:80"', "192.0.2.43"),
        # A quoted string is no list and no parameter, whatever the client has put into it.
        ('proto=http;host="x;for=203.0.113.6;y";for=192.0.2.7', "192.0.2.7"),
        ('for=192.0.2.7;host="x,for=203.0.113.6;y"', "192.0.2.7"),
        ('for=192.0.2.7;host="x,for=203.0.113.6"', "192.0.2.7"),
        (r'for=192.0.2.7;host="\",for=203.0.113.6;a=\""', "192.0.2.7"),
        (r'for=192.0.2.7;host="\\"', "192.0.2.7"),
        (r'host="\\";for=192.0.2.7', "192.0.2.7"),
        (r'for="192.0.2\.7"', "192.0.2.7"),
        # A quote that the client has left open hides nothing of what the proxy has written.
        ('for=203.0.113.6;host=", for=192.0.2.7', "192.0.2.7"),
        ('for=203.0.113.6;host=", for=192.0.2.7;host="a"', "192.0.2.7"),
        ('for=203.0.113.6;host="\\, for="192.0.2.7"', "192.0.2.7"),
        # What is not well formed names nobody.
        ('for=192.0.2.7;host="a', "10.0.0.1"),
        ('for=192.0.2.7;host=a"', "10.0.0.1"),
        ('for=192.0.2.7;host="a"b', "10.0.0.1"),
        (r'for=192.0.2.7;host="a\"', "10.0.0.1"),
        ("for=192.0.2.7 for=203.0.113.6", "10.0.0.1"),
        ("for=192.0.2.7;for=203.0.113.6", "10.0.0.1"),
        ("for=192.0.2.7;FOR=192.0.2.7", "10.0.0.1"),
        ("for=192.0.2.7;for", "10.0.0.1"),
        ("for==192.0.2.7", "10.0.0.1"),
        ("for=192.0.2.7,", "10.0.0.1"),
        ("for=", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("for=192.0.2.7;", "192.0.2.7"),
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


@pytest.mark.parametrize("piece", [" ", '"', "\\", ",", "=", ";", '\\"', 'for="', "for=203.0.113.6,"])
def test_what_a_stranger_writes_before_the_proxy_is_not_read(piece: str) -> None:
    written = [piece * (7900 // len(piece))] * 6
    headers = CIMultiDict([*(("Forwarded", line) for line in written), ("Forwarded", "for=192.0.2.7")])
    assert Peers(PROXIES, FORWARDED).client("10.0.0.1", headers) == "192.0.2.7"
    assert Peers(PROXIES, FORWARDED).client("10.0.0.1", {"FORWARDED": f"for={written[0]}x y, for=192.0.2.7"}) == (
        "192.0.2.7"
    )


@pytest.mark.parametrize(("header", "entry"), [(FORWARDED, "for=192.0.2.7"), (X_FORWARDED_FOR, "192.0.2.7")])
def test_an_entry_that_is_not_read_to_its_beginning_names_nobody(header: str, entry: str) -> None:
    peers = Peers(PROXIES, header)
    # The last entry is a proxy's; of the one before it `cut` characters are within what is read.
    last = entry.replace("192.0.2.7", "10.0.0.2")
    for cut in range(len(entry) + 1):
        blanks = " " * (MAX_READ - len(last) - 1 - cut)
        value = f"203.0.113.6,{entry},{blanks}{last}"
        found = peers.client("10.0.0.1", {header: value})
        assert found == "10.0.0.2", cut
    assert peers.client("10.0.0.1", {header: f"{entry},{' ' * 100}{last}"}) == "192.0.2.7"


@given(
    st.text(alphabet='for=;," \\[]:_a1.', max_size=60),
    st.ip_addresses().filter(lambda a: not any(a in n for n in PROXIES if n.version == a.version)),
    st.text(alphabet='for=;," \\[]:_a1.', max_size=20),
)
def test_forwarded_is_the_proxys_own_word_whatever_stands_before_it_and_in_its_quotes(
    written: str, seen: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str
) -> None:
    peers = Peers(PROXIES, FORWARDED)
    node = str(seen) if seen.version == 4 else f"[{seen}]"
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    honest = peers.client("10.0.0.1", {"FORWARDED": f'for="{node}"'})
    for own in (f'for="{node}";host="{quoted}"', f'host="{quoted}" ; for="{node}:4711"'):
        assert peers.client("10.0.0.1", {"FORWARDED": f"{written}, {own}"}) == honest


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
