"""Server-side request forgery: an endpoint must not steer the node where its user cannot go.

The class of cert-manager #8756, KubeVela #7103, CVE-2025-13281 and GO-2025-3968: each way to spell
or reach the metadata service (here 127.0.0.1 and 169.254.169.254 stand for it), refused.
"""

import ipaddress
import json

import pytest

from modelcache_api.errors import EndpointDeniedError
from modelcache_node.transfer.addresses import AddressBook, Endpoint, parse_url
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import Grant, RangeRequest
from modelcache_node.transfer.rules import NetworkRules, parse_network
from support.agent_process import Agent, agent_home, run_cli
from support.fault_origin import FaultOrigin
from support.faults import redirect

CLOSED = NetworkRules()


def rules(allowed=(), denied=(), hosts=()):
    return NetworkRules(
        tuple(map(parse_network, allowed)), tuple(map(parse_network, denied)), tuple(hosts)
    )


class Names:
    """A resolver whose answer changes at every look-up, as an attacker's may."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def look_up(self, host, port):
        return [self.answers.pop(0)]


async def reach(url, found=CLOSED, **how):
    endpoint, _ = parse_url(url)
    return await AddressBook(clock=lambda: 0.0, rules=found, **how).addresses_of(endpoint)


async def test_metadata_by_ip_is_refused():
    """SSRF (CVE-2025-13281): the metadata service by its address."""
    with pytest.raises(EndpointDeniedError, match="link-local, where metadata services are"):
        await reach("http://169.254.169.254/latest/meta-data/")


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "127.1",
        "0",
        "017700000001",
    ],
)
async def test_metadata_by_decimal_or_octal_ip_is_refused(host):
    """SSRF by an address that only the resolver reads as one: decimal, octal, short."""
    with pytest.raises(EndpointDeniedError):
        await reach(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        *("[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[fd12::7]"),
        *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::169.254.169.254]"),
        *("[2002:a9fe:a9fe::1]", "[64:ff9b::169.254.169.254]"),
    ],
)
async def test_metadata_by_ipv6_is_refused(host):
    """SSRF by IPv6: the address itself, or an IPv4 one mapped, translated or tunnelled."""
    with pytest.raises(EndpointDeniedError):
        await reach(f"http://{host}/")


async def test_metadata_by_dns_name_is_refused():
    """SSRF by a public name that leads to the metadata service."""
    with pytest.raises(EndpointDeniedError, match=r"models\.example"):
        await reach("https://models.example/", lookup=Names("169.254.169.254").look_up)


async def test_a_real_name_that_leads_to_this_host_is_refused():
    """SSRF by DNS name, by the system's own resolver."""
    with pytest.raises(EndpointDeniedError, match="this host"):
        await reach("http://localhost/")


async def test_rebinding_gains_nothing():
    """DNS rebinding: what was checked is what is connected to, and each new answer is checked."""
    names = Names("93.184.215.14", "169.254.169.254")
    book = AddressBook(clock=lambda: 0.0, rules=CLOSED, lookup=names.look_up)
    endpoint = Endpoint("https", "models.example", 443)
    assert await book.addresses_of(endpoint) == ["93.184.215.14"]
    assert await book.addresses_of(endpoint) == ["93.184.215.14"]
    book.forget(endpoint)
    with pytest.raises(EndpointDeniedError):
        await book.addresses_of(endpoint)


async def test_a_mover_opens_no_connection_to_a_closed_address():
    """SSRF: nothing is sent, not even a SYN, to an address that is closed."""
    with FaultOrigin() as origin:
        origin.put("models/a", b"secret")
        async with Movers(count=1, rules=CLOSED) as movers:
            with pytest.raises(EndpointDeniedError):
                await movers.fetch(RangeRequest(None, 0, 1, Grant(f"{origin.url}/models/a")))
    assert origin.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "127.8.8.8"),
        *("10.96.0.1", "172.20.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
        "255.255.255.255",
    ],
)
def test_special_addresses_are_closed_by_themselves(address):
    """SSRF: metadata services of every cloud, the node, the cluster, and no single host."""
    assert f"network.allowedRanges: [{address}/32]" in CLOSED.address_refusal(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "52.216.0.1", "2600:1fa0::1"])
def test_public_addresses_are_open_by_themselves(address):
    assert CLOSED.address_refusal(address) is None


def test_the_value_that_a_refusal_names_opens_what_was_refused():
    refusal = CLOSED.address_refusal("10.20.0.15")
    [network] = json.loads(
        refusal.partition("network.allowedRanges: ")[2].replace("[", '["').replace("]", '"]')
    )
    assert rules(allowed=[network]).address_refusal("10.20.0.15") is None
    assert rules(allowed=[network]).address_refusal("10.20.0.16")


def test_the_narrowest_range_decides():
    """SSRF: opening a wide range must not open the metadata service or the pods within it."""
    wide = rules(
        allowed=["0.0.0.0/0", "::/0", "10.0.0.0/8"], denied=["10.244.0.0/16", "52.0.0.0/8"]
    )
    assert wide.address_refusal("169.254.169.254")
    assert wide.address_refusal("::ffff:169.254.169.254")
    assert wide.address_refusal("10.244.1.1")
    assert wide.address_refusal("52.1.1.1")
    assert wide.address_refusal("10.20.0.15") is None
    assert rules(allowed=["169.254.169.254/32"]).address_refusal("169.254.169.254") is None


@pytest.mark.parametrize("host", ["evil.example", "s3.amazonaws.com.evil.example", "93.184.215.14"])
async def test_hosts_beside_the_allowed_ones_are_refused(host):
    """SSRF: with a list of hosts, every other host and every bare address is closed."""
    with pytest.raises(EndpointDeniedError, match=r"network\.allowedHosts"):
        await reach(f"https://{host}/", rules(hosts=["*.amazonaws.com"]))


async def test_an_allowed_host_may_be_spelled_in_any_case():
    found = rules(hosts=["*.amazonaws.com"])
    names = Names("52.216.0.1")
    assert await reach("https://B.S3.AmazonAWS.com/", found, lookup=names.look_up)


async def test_metadata_by_redirect_is_refused():
    """SSRF by redirect (GO-2025-3968): each hop is checked like the first."""
    with FaultOrigin() as origin:
        origin.put("models/a", b"secret")
        origin.always(redirect("http://169.254.169.254/latest/meta-data/"))
        async with Movers(count=1, rules=rules(allowed=["127.0.0.0/8"])) as movers:
            with pytest.raises(EndpointDeniedError, match=r"169\.254\.169\.254"):
                await movers.fetch(RangeRequest(None, 0, 1, Grant(f"{origin.url}/models/a")))


async def test_a_redirect_to_another_host_carries_no_header_of_the_grant():
    """Token leak by redirect: what authorises is for the host that the grant names."""
    with FaultOrigin() as origin, FaultOrigin() as thief:
        origin.put("models/a", b"secret")
        thief.put("models/a", b"secret")
        origin.always(redirect(f"{thief.url}/models/a"))
        grant = Grant(f"{origin.url}/models/a", (("Authorization", "Bearer canary"),))
        async with Movers(count=1) as movers:
            await movers.fetch(RangeRequest(None, 0, 1, grant))
        assert origin.asked[0].headers["authorization"] == "Bearer canary"
        assert all("authorization" not in asked.headers for asked in thief.asked)
        assert thief.asked


def test_promise_closed_addresses_stay_closed(source):
    """SSRF end to end: a real agent with rules, and grants that lead to loopback."""
    with agent_home() as home:
        agent = Agent(home, "--allow-range", "10.20.0.0/16")
        agent.start()
        try:
            done = run_cli(
                *("prefetch", *source.flags, "--socket", agent.socket, "--model-cache", "model")
            )
            assert done.returncode == 42
            assert "network.allowedRanges: [127.0.0.1/32]" in done.stderr
            assert not agent.revisions()
            assert agent.ask("GET", "/v1/status")[1]["proofs"] == []
        finally:
            agent.stop()


def test_an_agent_goes_where_its_rules_let_it(source):
    with agent_home() as home:
        agent = Agent(home, "--allow-range", "127.0.0.1")
        agent.start()
        try:
            done = run_cli(*("prefetch", *source.flags, "--socket", agent.socket))
            assert done.returncode == 0, done.stderr
        finally:
            agent.stop()


def test_a_range_is_a_range():
    assert parse_network("10.1.2.3") == ipaddress.ip_network("10.1.2.3/32")
