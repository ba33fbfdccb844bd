"""Clients and backends that follow their scripts, and write down what they saw."""

import socket
import threading
import time

from . import case as plan, wire

# How long a connection that should stay is watched, seconds.
QUIET_S = 0.5
CONNECT_LIMIT_S = 5
# How long an end is waited for that may not come. Envoy's delayed close takes a second.
END_LIMIT_S = 4


def run_client(number, actions, world, seen):
    """Follows one script. `seen` gets items and their values."""
    name = f"client {number}"
    at = actions[0].name if isinstance(actions[0], plan.At) else "port"
    if isinstance(actions[0], plan.Put | plan.Page):
        observe(actions, world, seen)
        return
    try:
        sock = socket.create_connection(("127.0.0.1", world.ports[at]), CONNECT_LIMIT_S)
    except ConnectionRefusedError:
        seen[f"{name} end"] = "refused"
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = wire.Stream(sock)
    responses = 0
    for action in actions:
        match action:
            case plan.At():
                pass
            case plan.Put():
                world.put(action)
            case plan.Page():
                world.page(action, seen)
            case plan.Response():
                responses = read_responses(stream, action, name, responses, seen)
            case plan.Upgraded():
                seen[f"{name} upgraded bytes"] = repr(stream.exactly(action.length, limit()))
            case plan.ReadEnd():
                read_end(stream, name, responses, seen)
                return
            case plan.Close():
                sock.close()
                return
            case plan.Reset():
                stream.reset()
                return
            case _:
                act(stream, action)
    rest = stream.to_end(time.monotonic() + QUIET_S)
    if rest:
        seen[f"{name} rest"] = summary(rest)
    seen[f"{name} end"] = stream.end or "open"
    sock.close()


def observe(actions, world, seen):
    """A client without a connection: it changes files and looks at pages."""
    for action in actions:
        if isinstance(action, plan.Put):
            world.put(action)
        else:
            world.page(action, seen)


def read_end(stream, name, responses, seen):
    """All that comes up to the end of the connection: responses, then other bytes."""
    stream.rest = stream.to_end(time.monotonic() + END_LIMIT_S)
    while stream.rest.startswith(b"HTTP/1.") and b"\r\n\r\n" in stream.rest:
        responses += 1
        message = wire.read_message(stream, time.monotonic(), response=True)
        note_message(f"{name} response {responses}", message, stream, seen)
    if stream.rest:
        seen[f"{name} rest"] = summary(stream.rest)
    seen[f"{name} end"] = stream.end or "open"
    stream.sock.close()


def read_responses(stream, action, name, responses, seen):
    """One final response with the 1xx before it."""
    while True:
        responses += 1
        message = wire.read_message(stream, limit(), response=True, head_only=action.head_only)
        note_message(f"{name} response {responses}", message, stream, seen)
        if message is None or message.status() >= 200 or message.status() == 101:
            return responses


def limit():
    return time.monotonic() + wire.LIMIT_S


def act(stream, action):
    """What clients and backends can both do."""
    match action:
        case plan.Send(slowly=0):
            stream.send(action.data)
        case plan.Send():
            for byte in action.data:
                if not stream.send(bytes([byte])):
                    return
                time.sleep(action.slowly)
        case plan.Wait():
            time.sleep(action.seconds)
        case plan.ShutWrite():
            try:
                stream.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        case _:
            raise ValueError(f"nobody can do {action}")


def note_message(name, message, stream, seen):
    if message is None:
        seen[name] = f"none, got {summary(stream.take(len(stream.rest)))}, connection {stream.end or 'open'}"
        return
    seen[f"{name} line"] = message.first
    for header in {header for header, _ in message.headers}:
        seen[f"{name} header {header}"] = " | ".join(value for found, value in message.headers if found == header)
    seen[f"{name} body"] = summary(message.body) + ("" if message.whole else ", cut short")
    if message.trailers:
        seen[f"{name} trailers"] = repr(message.trailers)


def summary(data):
    if len(data) <= 300:
        return repr(data)
    return f"{len(data)} bytes, {data[:40]!r} ... {data[-20:]!r}"


class Backend:
    """A listening socket whose connections follow scripts."""

    def __init__(self, name, scripts, seen):
        self.name, self.scripts, self.seen = name, scripts, seen
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.held = []
        self.connections = 0
        self.threads = []
        if scripts == plan.SILENT:
            self.fill_queue()
        elif scripts != plan.REFUSES:
            self.socket.listen(128)
            thread = threading.Thread(target=self.accept, daemon=True)
            thread.start()

    def fill_queue(self):
        """With a full queue the kernel drops every SYN."""
        self.socket.listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.held.append(filler)

    def accept(self):
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self.held.append(sock)
            script = self.scripts[min(self.connections, len(self.scripts)) - 1]
            thread = threading.Thread(target=self.connection, args=[self.connections, sock, script], daemon=True)
            self.threads.append(thread)
            thread.start()

    def connection(self, number, sock, script):
        stream = wire.Stream(sock)
        name = f"backend {self.name} connection {number}"
        requests = 0
        for action in script:
            match action:
                case plan.ReadHead():
                    requests += 1
                    head = stream.until_mark(b"\r\n\r\n", limit())
                    message = wire.Message(head) if head else None
                    note_message(f"{name} request {requests}", message, stream, self.seen)
                case plan.ReadRequest():
                    requests += 1
                    note_message(f"{name} request {requests}", wire.read_message(stream, limit()), stream, self.seen)
                case plan.Serve():
                    self.serve(name, requests, stream, action)
                case plan.ReadEnd():
                    self.seen[f"{name} rest"] = summary(stream.to_end(limit()))
                    self.seen[f"{name} end"] = stream.end or "open"
                    return
                case plan.Close():
                    sock.close()
                    return
                case plan.Reset():
                    stream.reset()
                    return
                case _:
                    act(stream, action)

    def serve(self, name, requests, stream, action):
        while message := wire.read_message(stream, limit()):
            requests += 1
            note_message(f"{name} request {requests}", message, stream, self.seen)
            head_only = message.first.startswith("HEAD ")
            stream.send(action.data[:action.data.index(b"\r\n\r\n") + 4] if head_only else action.data)
        if stream.rest:
            self.seen[f"{name} unfinished request"] = summary(stream.rest)

    def finish(self):
        """After the proxy is gone every connection has ended."""
        for thread in self.threads:
            thread.join(5)
        self.socket.close()
        for sock in self.held:
            sock.close()
        self.seen[f"backend {self.name} connections"] = str(self.connections)
