"""Origins through proxies: tunnels that carry TLS, whole URLs, checked names, and exceptions."""

import re
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from modelcache_api.errors import (
    AccessDeniedError,
    EndpointDeniedError,
    InvalidRequestError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_api.proxies import Proxies
from modelcache_node.origins.base import SourceOptions, list_source
from modelcache_node.origins.opening import open_origin
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import Grant, RangeRequest
from modelcache_node.transfer.rules import NetworkRules
from support.fault_origin import FaultOrigin, Tls
from support.ranges import LIMITS, no_jitter

pytestmark = pytest.mark.timeout(120)


class Proxy:
    """A proxy that leads to one place, whatever it is asked for: by tunnels, or by whole URLs."""

    def __init__(self, leads_to: int, answer: bytes) -> None:
        self.asked: list[str] = []
        self._leads_to = leads_to
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _tunnel(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.asked.append(head.split(b"\r\n")[0].decode())
            is_tunnel = head.startswith(b"CONNECT ")
            if is_tunnel or b" 200 " not in self._answer:
                client.sendall(self._answer)
            if b" 200 " not in self._answer:
                return
            with socket.create_connection(("127.0.0.1", self._leads_to)) as origin:
                if not is_tunnel:
                    origin.sendall(re.sub(rb"^GET http://[^/]+", b"GET ", head))
                back = threading.Thread(target=_copy, args=(origin, client), daemon=True)
                back.start()
                _copy(client, origin)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_to(port: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"):
    proxy = Proxy(port, answer)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


@pytest.fixture
def tls():
    return Tls(names=("store.example", "localhost"))


@pytest.fixture
def origin(tls):
    with FaultOrigin(tls) as found:
        found.put("models/a", b"0123456789")
        yield found


@pytest.fixture
def plain_origin():
    with FaultOrigin() as found:
        found.put("models/a", b"0123456789")
        yield found


async def fetch(tls, host, **options):
    return await fetch_url(f"https://{host}/models/a", ca_pem=tls.ca_pem, **options)


async def fetch_url(url, ca_pem=None, **options):
    async with Movers(count=1, limits=LIMITS, uniform=no_jitter, **options) as movers:
        request = RangeRequest(None, 0, 10, Grant(url), ca_pem=ca_pem)
        return await movers.fetch(request, give_up_after_s=0.0)


async def test_a_plain_origin_is_asked_of_its_proxy_by_whole_urls(plain_origin, monkeypatch):
    with proxy_to(plain_origin.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        result = await fetch_url("http://store.example/models/a?b=%2F", rules=NetworkRules())
    assert result.bytes == 10
    assert proxy.asked == ["GET http://store.example/models/a?b=%2F HTTP/1.1"]


async def test_each_scheme_has_a_proxy_of_its_own(tls, origin, plain_origin, monkeypatch):
    with proxy_to(origin.port) as secure, proxy_to(plain_origin.port) as plain:
        monkeypatch.setenv("HTTPS_PROXY", secure.url)
        monkeypatch.setenv("HTTP_PROXY", plain.url)
        await fetch(tls, "store.example")
        await fetch_url("http://store.example:81/models/a")
    assert secure.asked == ["CONNECT store.example:443 HTTP/1.1"]
    assert plain.asked == ["GET http://store.example:81/models/a HTTP/1.1"]


async def test_a_plain_origin_that_needs_no_proxy_is_asked_straight(plain_origin, monkeypatch):
    with proxy_to(plain_origin.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        assert (await fetch_url(f"{plain_origin.url}/models/a")).bytes == 10
    assert proxy.asked == []


async def test_what_a_proxy_answers_in_an_origin_s_place_is_its_answer(plain_origin, monkeypatch):
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with proxy_to(plain_origin.port, refusal) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(AccessDeniedError):
            await fetch_url("http://store.example/models/a")


@pytest.mark.parametrize("endpoint", ["http://store.example", "https://store.example"])
async def test_anonymous_s3_is_listed_through_them(
    tls, origin, plain_origin, monkeypatch, tmp_path, endpoint
):
    (tmp_path / "ca.pem").write_text(tls.ca_pem)
    with proxy_to(origin.port) as secure, proxy_to(plain_origin.port) as plain:
        monkeypatch.setenv("HTTPS_PROXY", secure.url)
        monkeypatch.setenv("HTTP_PROXY", plain.url)
        options = SourceOptions(
            "s3://models", endpoint=endpoint, anonymous=True, ca_file=tmp_path / "ca.pem"
        )
        async with open_origin(options) as opened:
            assert [one.path for one in await list_source(opened, options)] == ["a"]
    assert len(secure.asked) == endpoint.startswith("https")
    assert len(plain.asked) == endpoint.startswith("http:")


async def test_an_origin_that_only_the_proxy_reaches_is_read(tls, origin, monkeypatch):
    with proxy_to(origin.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        result = await fetch(tls, "store.example", rules=NetworkRules())
    assert result.bytes == 10
    assert proxy.asked == ["CONNECT store.example:443 HTTP/1.1"]


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "2852039166"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_address_that_stands_as_a_name_is_checked(origin, monkeypatch, host, scheme):
    """SSRF through the proxy: what is closed is not asked of the proxy either."""
    with proxy_to(origin.port) as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url)
        with pytest.raises(EndpointDeniedError):
            await fetch_url(f"{scheme}://{host}/models/a", rules=NetworkRules())
    assert proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_names_are_checked_before_the_proxy_is_asked(origin, monkeypatch, scheme):
    rules = NetworkRules(allowed_hosts=("*.amazonaws.com",))
    with proxy_to(origin.port) as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url)
        with pytest.raises(EndpointDeniedError, match="allowedHosts"):
            await fetch_url(f"{scheme}://evil.example/models/a", rules=rules)
    assert proxy.asked == []


async def test_the_certificate_is_the_origin_s_not_the_proxy_s(tls, origin, monkeypatch):
    with proxy_to(origin.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(InvalidSourceError, match="not trusted"):
            await fetch(tls, "another.example")


async def test_what_needs_no_proxy_goes_straight(tls, origin, monkeypatch):
    with proxy_to(origin.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert (await fetch(tls, f"localhost:{origin.port}")).bytes == 10
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", InvalidSourceError),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", SourceUnavailableError),
        (b"", SourceUnavailableError),
        (b"x" * 10_000, SourceUnavailableError),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_says_so(tls, origin, monkeypatch, answer, error):
    with proxy_to(origin.port, answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(error, match=r"the proxy opened no tunnel to store\.example:443"):
            await fetch(tls, "store.example")


@pytest.mark.parametrize(
    ("exempt", "host", "is_straight"),
    [
        ("storage.svc", "minio.storage.svc", True),
        (".storage.svc", "minio.storage.svc", True),
        ("storage.svc", "evilstorage.svc", False),
        ("10.0.0.0/8, x", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("*", "store.example", True),
        ("", "store.example", False),
    ],
)
def test_exceptions_are_read_as_other_programs_do(exempt, host, is_straight):
    proxies = Proxies.from_environment({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": exempt})
    assert (proxies.way_to("https", host) is None) is is_straight
    assert proxies.way_to("http", host) is None


@pytest.mark.parametrize(
    "url", ["p:3128", "https://p:1", "http://u:secret@p:1", "http://p", "http://p:x"]
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY"])
def test_a_proxy_that_is_none_is_refused_without_repeating_it(url, name):
    with pytest.raises(InvalidRequestError, match=name) as error:
        Proxies.from_environment({name: url})
    assert "secret" not in str(error.value)
