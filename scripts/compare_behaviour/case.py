"""What a case is made of: a configuration, clients and backends. The files in `cases/` use only this."""

import json
from dataclasses import dataclass, field

TYPE = "type.googleapis.com/envoy.extensions."
HCM = TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "filters.http.router.v3.Router"
FILE_LOG = TYPE + "access_loggers.file.v3.FileAccessLog"
TCP_PROXY = TYPE + "filters.network.tcp_proxy.v3.TcpProxy"

# Fields of a line of the access log, each compared by itself. Times are left out.
LOG_FIELDS = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "host": "%UPSTREAM_HOST%",
    "route": "%ROUTE_NAME%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "xff": "%REQ(X-FORWARDED-FOR)%",
}


# What a client does, in order.

@dataclass
class Send:
    """Writes bytes; `slowly` is the pause between two bytes, in seconds."""
    data: bytes
    slowly: float = 0


@dataclass
class Response:
    """Reads one whole response. `head_only`: the request was a HEAD."""
    head_only: bool = False


@dataclass
class Upgraded:
    """Reads this many bytes of what follows a 101 or the 200 of a CONNECT."""
    length: int


@dataclass
class Wait:
    """Lets time pass, in seconds."""
    seconds: float


@dataclass
class ShutWrite:
    """Ends the client's or backend's direction."""


@dataclass
class Close:
    """Closes the connection. As the last word of a client: do not look how it ends."""


@dataclass
class Reset:
    """Closes with RST."""


@dataclass
class ReadEnd:
    """Reads to the end of the connection, and records what came and how it ended."""


@dataclass
class Put:
    """Gives a file of the case this content, and waits until the program has seen it, or seems not to look.

    `resources` is a list of messages, or a text that is written as it is. `way`: `rename`, `in place` or
    `link` (the directory behind `..data` is replaced, as Kubernetes does).
    """
    file: str
    resources: list | str
    version: str = "2"
    way: str = "rename"


@dataclass
class Page:
    """Asks the admin interface, and records every value of a page of JSON, every line of another one."""
    path: str


@dataclass
class At:
    """The first word of a client: it connects to another listener than `@port@`."""
    name: str


# What a backend does with a connection, in order; `Send`, `Wait`, `Close`, `ShutWrite` and `Reset` too.

@dataclass
class ReadHead:
    """Reads up to the end of a request's head."""


@dataclass
class ReadRequest:
    """Reads a whole request with its body."""


@dataclass
class Serve:
    """Answers every request with the same bytes until the peer closes; what a backend does that is told nothing.

    A request with a HEAD gets the head only.
    """
    data: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


REFUSES = "refuses"
SILENT = "silent"


@dataclass
class Case:
    """One comparison.

    `clients` is a list of lists of actions, one connection each, one after the other. `backends` has
    for every name the list of scripts of its connections in order, the last one again and again;
    `REFUSES` for an address nobody listens on, `SILENT` for one where connecting never ends.
    """
    name: str
    config: dict
    clients: list
    backends: dict = field(default_factory=dict)
    # Patterns of statistics that are compared beside the usual ones.
    stats: list = field(default_factory=list)
    # Files below `@directory@` that are there at the start; what `Put` has for a file.
    files: dict = field(default_factory=dict)
    area: str = ""


def get(path="/", *lines, host="x"):
    """A GET without a body."""
    return request("GET", path, *lines, host=host)


def request(method, path, *lines, body=b"", host="x"):
    """A request as bytes; `lines` are header lines, text or bytes."""
    head = [f"{method} {path} HTTP/1.1".encode() if isinstance(path, str) else
            method.encode() + b" " + path + b" HTTP/1.1"]
    if host is not None:
        head.append(b"Host: " + host.encode())
    head += [line.encode() if isinstance(line, str) else line for line in lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def ask(data, **options):
    """A client that sends one request, reads its response and looks whether the connection stays."""
    return [Send(data), Response(**options)]


def answer(status="200 OK", *lines, body=b"ok", length=True):
    """A response as bytes."""
    head = [f"HTTP/1.1 {status}", *lines]
    if length:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


# Resources in files.

def file_text(resources, version="1"):
    """What stands in a file."""
    if isinstance(resources, str):
        return resources
    return json.dumps({"version_info": version, "resources": resources}, indent=1)


def resource(kind, message):
    """A message as a resource; `kind` is the last word of its type."""
    types = {"Cluster": "cluster", "Listener": "listener", "RouteConfiguration": "route", "ClusterLoadAssignment": "endpoint"}
    return {"@type": f"type.googleapis.com/envoy.config.{types[kind]}.v3.{kind}", **message}


def from_file(name, **fields):
    """A configuration source."""
    return {"path_config_source": {"path": f"@directory@/{name}"}, "resource_api_version": "V3", **fields}


# Configurations.

def cluster(name, *backends, **fields):
    """A static cluster of backends."""
    endpoints = [{"endpoint": {"address": address(f"@port:{backend}@")}} for backend in backends]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}, **fields}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def to(cluster_name="up", match=None, name=None, **fields):
    """A route to a cluster."""
    route = {"match": match or {"prefix": "/"}, "route": {"cluster": cluster_name, **fields}}
    return {**route, "name": name} if name else route


def http(*routes, clusters=None, hcm=None, virtual_host=None, route_config=None, listener=None):
    """A listener with an HTTP connection manager. Without routes everything goes to the backend `up`.

    `hcm`, `virtual_host`, `route_config` and `listener` add fields to those messages or replace them.
    """
    host = {"name": "all", "domains": ["*"], "routes": list(routes) or [to()], **(virtual_host or {})}
    manager = {
        "@type": HCM, "stat_prefix": "test", "server_name": "proxy",
        "route_config": {"name": "routes", "virtual_hosts": [host], **(route_config or {})},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "access_log": [file_log()],
        **(hcm or {}),
    }
    return listening({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
                     [cluster("up", "up")] if clusters is None else clusters, listener)


def tcp(clusters=None, **fields):
    """A listener with a TCP proxy."""
    proxy = {"@type": TCP_PROXY, "stat_prefix": "test", "cluster": "up", "access_log": [file_log()], **fields}
    return listening({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy},
                     clusters or [cluster("up", "up")], None)


def listening(network_filter, clusters, listener):
    return {
        # Envoy wants one where resources come from files.
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"pipe": {"path": "@directory@/admin.sock"}}},
        "static_resources": {
            "listeners": [{"name": "test", "stat_prefix": "test", "address": address("@port@"),
                           "filter_chains": [{"filters": [network_filter]}], **(listener or {})}],
            "clusters": clusters,
        },
    }


def file_log():
    line = "\t".join(f"{name}={command}" for name, command in LOG_FIELDS.items()) + "\n"
    return {"name": "envoy.access_loggers.file",
            "typed_config": {"@type": FILE_LOG, "path": "@directory@/access.log",
                             "log_format": {"text_format_source": {"inline_string": line}}}}
