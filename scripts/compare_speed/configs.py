"""The configurations of the peers: what somebody who cares for speed would write for each.

Common to all: keep-alive to the backend with a pool that is never too small, no limit of requests for
a connection, no log unless the scenario wants one, the same number of workers, timeouts on. baton and
Envoy read the same file, byte for byte, and everything that it does not name has its default.
"""

from dataclasses import dataclass, field

from .machine import NGINX_STREAM

# Names of the headers that `headers-10` sets: five on the request, five on the response.
HEADERS = range(5)


@dataclass(frozen=True)
class Features:
    """What a scenario wants of the proxy beyond passing on."""
    routes: int = 0
    log: bool = False
    headers: bool = False


@dataclass(frozen=True)
class Setup:
    """Ports, the directory of one proxy in one scenario, and what it must do."""
    directory: object
    http: int
    tcp: int
    admin: int
    upstream_http: int
    upstream_tcp: int
    workers: int
    features: Features = field(default_factory=Features)

    @property
    def log(self):
        return self.directory / "access.log"


def route(number):
    """The prefix of a route; all prefixes have the same length and differ at the end."""
    return f"/service/r{number:04}/"


def nginx(setup, root):
    directory, features = setup.directory, setup.features
    temporary = "\n".join(f"  {kind}_temp_path {directory}/{kind};" for kind in
                          ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    # Buffered, as the others do it: a write for each line costs more than the line.
    log = f"access_log {setup.log} combined buffer=64k flush=1s;" if features.log else "access_log off;"
    headers = "".join(f"proxy_set_header X-To-{n} value-{n}; add_header X-From-{n} value-{n}; " for n in HEADERS)
    # `proxy_set_header` in a location hides those of the server, hence the one for keep-alive again.
    passing = f"proxy_pass http://u; proxy_set_header Connection ''; {headers if features.headers else ''}"
    routes = "\n".join(f"    location {route(n)} {{ {passing} }}" for n in range(features.routes))
    return f"""
load_module {NGINX_STREAM};
{"user root;" if root else ""}
worker_processes {setup.workers};
# An old worker of a reload ends what it has within this time.
worker_shutdown_timeout 3s;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
# Room for 10,000 idle clients.
events {{ worker_connections 16384; }}
http {{
  {log}
{temporary}
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  upstream u {{
    server 127.0.0.1:{setup.upstream_http};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    # One socket for each worker, as baton and HAProxy have it.
    listen 127.0.0.1:{setup.http} backlog=4096{" reuseport" if setup.workers > 1 else ""};
    proxy_http_version 1.1;
    # An answer of 64 KiB and its head fit into the first buffer: a quarter less time than with buffers of
    # 32 KiB, and small answers cost the same. No file for what is larger.
    proxy_buffer_size 80k;
    proxy_buffers 4 80k;
    proxy_busy_buffers_size 160k;
    proxy_max_temp_file_size 0;
    # A body of 16 KiB goes on as it comes, as with the others, and never to a file.
    client_body_buffer_size 64k;
    proxy_request_buffering off;
    location / {{ {passing} }}
    location /ws {{
      proxy_pass http://u;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
{routes}
  }}
}}
stream {{
  server {{
    listen 127.0.0.1:{setup.tcp} backlog=4096{" reuseport" if setup.workers > 1 else ""};
    proxy_pass 127.0.0.1:{setup.upstream_tcp};
    # A bulk transfer costs more with the default of 16 KiB. Not larger: buffers from 128 KiB on are mapped
    # and unmapped by the allocator for each connection.
    proxy_buffer_size 120k;
    # The others pass the end of one direction on, and the generator waits for the answer to it.
    proxy_half_close on;
  }}
}}
"""


def haproxy_map(setup):
    """The idiomatic way to many routes is a map, which is a tree; a thousand rules would be a list."""
    return "".join(f"{route(number)} up\n" for number in range(setup.features.routes))


def haproxy(setup):
    features = setup.features
    lines = []
    if features.log:
        # The standard output is a file here. HAProxy writes each line by itself, it has no buffer for it.
        lines += ["log stdout format raw local0 info", "option httplog"]
    if features.headers:
        lines += [f"http-request set-header X-To-{n} value-{n}" for n in HEADERS]
        lines += [f"http-response set-header X-From-{n} value-{n}" for n in HEADERS]
    if features.routes:
        lines.append(f"use_backend %[path,map_beg({setup.directory}/routes.map,up)]")
    frontend = "\n".join(f"  {line}" for line in lines)
    return f"""
global
  nbthread {setup.workers}
  # Room for 10,000 idle clients; fewer descriptors than twice that are a warning, not the end.
  maxconn 12000
  no strict-limits
  stats socket {setup.directory}/haproxy.sock mode 600 level admin expose-fd listeners
  # An old process of a reload ends what it has within this time.
  hard-stop-after 3s
  # The best of 16 to 256 KiB for large answers, bodies and bulk transfers; small answers cost the same.
  tune.bufsize 122880
defaults
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  timeout http-request 30s
  timeout http-keep-alive 1h
  # Any request may take any idle connection to the backend.
  http-reuse always
frontend http
  mode http
  bind 127.0.0.1:{setup.http} backlog 4096
{frontend}
  default_backend up
backend up
  mode http
  server one 127.0.0.1:{setup.upstream_http}
listen tcp
  mode tcp
  # It may splice where it thinks that this pays; with these buffers the difference is small.
  option splice-auto
  bind 127.0.0.1:{setup.tcp} backlog 4096
  server one 127.0.0.1:{setup.upstream_tcp}
"""


def envoy_log(setup):
    if not setup.features.log:
        return ""
    return f"""
                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: {setup.log}"""


def envoy_headers(setup):
    if not setup.features.headers:
        return ""

    def entries(direction):
        lines = []
        for number in HEADERS:
            header = f"{{ key: x-{direction}-{number}, value: value-{number} }}"
            lines.append(f"{' ' * 24}- {{ header: {header}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}")
        return "\n".join(lines)
    return f"""
                      request_headers_to_add:
{entries('to')}
                      response_headers_to_add:
{entries('from')}"""


def envoy(setup):
    """For baton and Envoy."""
    routes = "\n".join(f"{' ' * 24}- {{ match: {{ prefix: {route(number)} }}, route: {{ cluster: up }} }}"
                       for number in range(setup.features.routes))
    kind = "type.googleapis.com/envoy.extensions.filters"

    def cluster(name, port):
        return f"""
    - name: {name}
      connect_timeout: 5s
      type: STATIC
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}"""
    return f"""
admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {setup.admin} }} }}
static_resources:
  listeners:
    - name: http
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {setup.http} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {kind}.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: ingress_http
                upgrade_configs:
                  - upgrade_type: websocket{envoy_log(setup)}
                route_config:
                  name: local_route
                  virtual_hosts:
                    - name: all
                      domains: ["*"]{envoy_headers(setup)}
                      routes:
{routes}
                        - {{ match: {{ path: /ws }}, route: {{ cluster: up, timeout: 0s }} }}
                        - {{ match: {{ prefix: / }}, route: {{ cluster: up }} }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": {kind}.http.router.v3.Router
    - name: tcp
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {setup.tcp} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": {kind}.network.tcp_proxy.v3.TcpProxy
                stat_prefix: tcp
                cluster: tcp_up
  clusters:{cluster('up', setup.upstream_http)}{cluster('tcp_up', setup.upstream_tcp)}
"""
