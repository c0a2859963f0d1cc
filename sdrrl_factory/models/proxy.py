"""A proxy that the environment puts between this machine and a server: which variable names it, whether it can serve.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read here as by the libraries that ask servers and the hub (httpx,
requests).
"""

import importlib.util
import os
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from sdrrl_factory.errors import UserError


class Proxy(NamedTuple):
    """variable: the environment's. address: without user and password. host, port: where it listens."""

    variable: str
    address: str
    host: str
    port: int


def proxy_of(url: str) -> Proxy | None:
    """The proxy through which a server is asked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if proxy_bypass(host) or proxy_bypass(f"{host}:{parts.port}"):
        return None
    proxies = _proxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def check_proxies() -> None:
    """Say in a line what httpx says in a traceback when a client is made: it looks at all of them, needed or not.

    Raises: UserError, without a key.
    """
    for proxy in _proxies().values():
        scheme = urlsplit(proxy.address).scheme
        if scheme not in ("http", "https", "socks5", "socks5h"):
            what = f"{proxy.variable}={proxy.address} is no proxy's address"
            raise UserError(what, f"mend it, or unset {proxy.variable}")
        if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            what = f"{proxy.variable}={proxy.address} is a SOCKS proxy, which takes the package socksio"
            raise UserError(what, f"run `pip install socksio`, or unset {proxy.variable}")


def through_proxy(url: str) -> str:
    """For a message about a server that does not answer: " through the proxy ...", or "" without one."""
    proxy = proxy_of(url)
    return f" through the proxy {proxy.address} of {proxy.variable}" if proxy else ""


def around_proxy(url: str) -> str:
    """The next step where a proxy may be what does not answer: ", or ...", or "" without one."""
    return f", or go around the proxy: NO_PROXY={urlsplit(url).hostname}" if proxy_of(url) else ""


def _proxies() -> dict[str, Proxy]:
    """Those of http, https and all."""
    known = getproxies()
    return {scheme: _proxy(scheme, known[scheme]) for scheme in ("http", "https", "all") if known.get(scheme)}


def _proxy(scheme: str, text: str) -> Proxy:
    names = [name for name in os.environ if name.lower() == f"{scheme}_proxy"]
    variable = names[0] if names else "the system's settings"
    address = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # a port that is none
        return Proxy(variable, f"none://{text}", "", 0)
    shown = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    return Proxy(variable, shown, host, port)
