"""Shared by the measuring scripts: programs, ports, configurations and a baton to measure."""

import re
import selectors
import shlex
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

from compare_speed.machine import ROOT, free_ports, need, wait_for_port

BATON = ROOT / "target/release/baton"

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


def build():
    """Makes the release program what the source says."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "baton"], cwd=ROOT, check=True)


def socket_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name, port, kind, **settings):
    """A listener with one network filter."""
    short = "http_connection_manager" if kind == HCM else "tcp_proxy"
    config = {"@type": kind, "stat_prefix": name, **settings}
    if kind == HCM:
        config["http_filters"] = [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}]
    filters = [{"name": f"envoy.filters.network.{short}", "typed_config": config}]
    return {"name": name, "address": socket_address(port), "filter_chains": [{"filters": filters}]}


def cluster(name, ports, **settings):
    """A cluster of endpoints with literal addresses."""
    endpoints = [{"endpoint": {"address": socket_address(port)}} for port in ports]
    return {"name": name, "connect_timeout": "5s", "type": "STATIC", **settings,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}}


def route_config(routes):
    return {"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


class Backend:
    """Answers every request with the same bytes and returns the bytes of every tunnel."""

    def __init__(self, body=1024):
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % body
        self.answer += b"x" * body
        self.http = self._listen(self._serve_http)
        self.echo = self._listen(self._serve_echo)

    @staticmethod
    def _listen(serve):
        server = socket.create_server(("127.0.0.1", 0), backlog=4096)

        def accept():
            selector = selectors.DefaultSelector()
            selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is server:
                        connection, _ = server.accept()
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        selector.register(connection, selectors.EVENT_READ, bytearray())
                    elif not serve(key.fileobj, key.data):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

        threading.Thread(target=accept, daemon=True).start()
        return server.getsockname()[1]

    def _serve_http(self, connection, unread):
        try:
            data = connection.recv(65536)
            unread += data
            while (end := unread.find(b"\r\n\r\n")) >= 0:
                length = end + 4 + content_length(unread[:end])
                if len(unread) < length:
                    break
                del unread[:length]
                connection.sendall(self.answer)
            return bool(data)
        except OSError:
            return False

    @staticmethod
    def _serve_echo(connection, _):
        try:
            data = connection.recv(65536)
            connection.sendall(data)
            return bool(data)
        except OSError:
            return False


def content_length(head):
    """The length a head announces, 0 when it does not."""
    at = head.lower().find(b"content-length:")
    if at < 0:
        return 0
    return int(head[at + 15:].split(b"\r\n", 1)[0])


class Baton:
    """A running baton with one worker thread."""

    def __init__(self, directory, program=BATON, arguments=(), before=()):
        self.directory = directory
        self.config = directory / "envoy.yaml"
        self.control = directory / "control.sock"
        self.log = (directory / "log").open("a")
        self.command = [*before, str(program), "run", "-c", str(self.config), "--control-socket", str(self.control),
                        "--concurrency", "1", "--log-level", "warning", "--probation-s", "0",
                        "--parent-shutdown-time-s", "2", "--drain-time-s", "1", *arguments]

    def start(self, port):
        """Starts it and waits until it listens on the port."""
        command = [*self.command, "--base-id", str(port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        # Ten thousand clusters take their time, under callgrind even more.
        try:
            wait_for_port(port, self.process, seconds=60)
        except RuntimeError as error:
            raise SystemExit(f"baton did not start: {error}") from None

    def reload(self):
        """Reloads and waits; the seconds it took."""
        command = [str(BATON), "reload", "--control-socket", str(self.control)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"`baton reload` failed: {done.stdout}{done.stderr}")
        return time.perf_counter() - began

    def worker(self):
        """Process of the newest worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return max(map(int, children))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, length):
    """Reads exactly so many bytes."""
    while length > 0:
        data = connection.recv(length)
        if not data:
            raise SystemExit("the connection ended too early")
        length -= len(data)


def response(connection):
    """Reads a whole response."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            raise SystemExit(f"the connection ended after {head!r}")
        head += data
    head, body = head.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"unexpected answer: {head!r}")
    receive(connection, content_length(head) - len(body))


def keep_alive(port, request):
    """Makes an exchange of this request, always on the same connection."""
    connection = connect(port)

    def exchange():
        connection.sendall(request)
        response(connection)

    return exchange


class Counted:
    """A worker of baton under callgrind.

    The supervisor runs as it is. Then a script that starts callgrind takes the place of the program
    file, and a reload makes the next worker run under callgrind. So nothing the supervisor does
    (process descriptors, signals) has to be known to valgrind, and only the worker is counted. It
    first serves some exchanges, so that pools and buffers are there, then writes its counts, serves
    the exchanges and writes them again: the second file has what those cost. Each thread has a file
    of its own; the one that grew most is the worker thread's.
    """

    def __init__(self, directory, configuration, port):
        self.directory = directory
        program = directory / "baton"
        shutil.copy2(BATON, program)
        self.baton = Baton(directory, program, ["--start-timeout-s", "300"])
        self.baton.config.write_text(configuration)
        self.baton.start(port)
        try:
            self._under_callgrind(program)
        except BaseException:
            self.baton.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.baton.stop()

    def _under_callgrind(self, program):
        script = self.directory / "script"
        callgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--log-file=/dev/null",
                     f"--callgrind-out-file={self.directory}/counts.%p", f"--vgdb-prefix={self.directory}/vgdb", str(BATON)]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(callgrind)} "$@"\n')
        script.chmod(0o755)
        script.rename(program)
        old = self.baton.worker()
        self.baton.reload()
        while self._runs(old):
            time.sleep(0.05)
        self.worker = self.baton.worker()

    @staticmethod
    def _runs(process):
        try:
            return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
        except OSError:
            return False

    def _dump(self):
        """Makes the worker write what it counted since the last time; the files, one a thread."""
        before = set(self.directory.glob("counts.*"))
        command = ["vgdb", f"--vgdb-prefix={self.directory}/vgdb", f"--pid={self.worker}", "dump"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return sorted(set(self.directory.glob("counts.*")) - before)

    def count(self, exchange, exchanges):
        """Instructions of one exchange, and the file that has them."""
        for _ in range(max(100, exchanges // 10)):
            exchange()
        self._dump()
        for _ in range(exchanges):
            exchange()
        total, file = max((total_of(file), file) for file in self._dump())
        return total / exchanges, file


def total_of(file):
    """The instructions of a file of counts."""
    found = re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
