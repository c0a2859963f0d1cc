"""A proxy in the environment: the one a server is asked through is named, and one that cannot serve is one line."""

import socket
import urllib.request

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models import proxy, server
from sdrrl_factory.models.proxy import around_proxy, check_proxies, proxy_of, through_proxy
from sdrrl_factory.models.server import Server, check_listens

VARIABLES = [name + case for name in ("HTTP", "HTTPS", "ALL", "NO") for case in ("_PROXY", "_proxy")]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [*VARIABLES, *map(str.lower, VARIABLES)]:
        monkeypatch.delenv(name, raising=False)
    # The system's settings count on other systems than this.
    monkeypatch.setattr(proxy, "getproxies", urllib.request.getproxies_environment)
    return monkeypatch.setenv


def make(url: str) -> Server:
    return Server(url, "m", api_key_env="NO_KEY", concurrency=1, timeout=5, retries=0)


@pytest.mark.parametrize(
    ("variables", "url", "variable"),
    [
        ({}, "http://a.org/v1", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://a.org/v1", "HTTP_PROXY"),
        ({"http_proxy": "p:3128"}, "http://a.org/v1", "http_proxy"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://a.org/v1", None),
        ({"ALL_PROXY": "http://p:3128"}, "https://a.org/v1", "ALL_PROXY"),
        ({"ALL_PROXY": "http://q:1", "HTTPS_PROXY": "http://p:3128"}, "https://a.org/v1", "HTTPS_PROXY"),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "localhost,a.org"}, "http://a.org/v1", None),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "*"}, "http://a.org/v1", None),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "localhost"}, "http://127.0.0.1:8000/v1", "HTTP_PROXY"),
    ],
    ids=str,
)
def test_the_proxy_is_the_one_that_httpx_takes(environment, variables, url, variable):
    for name, value in variables.items():
        environment(name, value)
    found = proxy_of(url)
    assert (found.variable if found else None) == variable
    httpx = pytest.importorskip("httpx")
    with httpx.Client() as client:
        transport = client._transport_for_url(httpx.URL(url))
    assert (transport is not client._transport) == (variable is not None)


def test_a_password_is_never_shown(environment):
    environment("ALL_PROXY", "http://me:secret@proxy.example:3128")
    assert through_proxy("http://a.org") == " through the proxy http://proxy.example:3128 of ALL_PROXY"
    assert around_proxy("http://a.org/v1") == ", or go around the proxy: NO_PROXY=a.org"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "socks5://127.0.0.1:1080",
            "ALL_PROXY=socks5://127.0.0.1:1080 is a SOCKS proxy, which takes the package socks",
        ),
        ("socks4://127.0.0.1:1080", "is no proxy's address"),
        ("ftp://a", "is no proxy's address"),
        ("http://a:port", "is no proxy's address"),
    ],
)
def test_a_proxy_that_cannot_serve_is_one_line_even_where_it_is_not_asked(environment, monkeypatch, value, said):
    monkeypatch.setattr(proxy.importlib.util, "find_spec", lambda name: None)
    environment("ALL_PROXY", value)
    environment("NO_PROXY", "localhost")
    with pytest.raises(UserError, match="unset ALL_PROXY") as err:
        check_proxies()
    assert said in str(err.value)
    monkeypatch.undo()
    environment("ALL_PROXY", value)
    with pytest.raises(UserError, match="ALL_PROXY") as err:
        make("http://localhost:8000/v1")
    assert err.value.key == "base_url"


def test_a_server_that_does_not_answer_through_a_proxy_names_it(environment, monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    environment("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError) as err:
        make("http://models.example:8000/v1").chat([[{"role": "user", "content": "Hi"}]], 4, 0.0)
    said = "no answer from http://models.example:8000/v1 through the proxy http://127.0.0.1:9 of HTTP_PROXY"
    assert said in str(err.value) and "NO_PROXY=models.example" in err.value.fix


def test_whether_a_server_listens_is_asked_of_the_proxy_on_the_way(environment):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert check_listens(f"http://127.0.0.1:{port}/v1") == f"http://127.0.0.1:{port}/v1 answers"
        environment("HTTP_PROXY", f"http://127.0.0.1:{port}")
        assert check_listens("http://models.example/v1").endswith(
            f"through the proxy http://127.0.0.1:{port} of HTTP_PROXY"
        )
    with pytest.raises(UserError, match=f"nobody answers through the proxy http://127.0.0.1:{port} of HTTP_PROXY"):
        check_listens("http://models.example/v1")
    environment("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match=r"nobody answers \("):
        check_listens(f"http://127.0.0.1:{port}/v1")
