"""Reading HTTP/1 from a socket without trusting either side: what came is kept as it came."""

import socket
import time

LIMIT_S = 15


class Stream:
    """A socket with what was read and not used yet, and how it ended."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = b""
        # None while it is open, then "closed" or "reset"; "silence" is for this read only.
        self.end = None

    def more(self, until):
        """Reads once. False: nothing came up to the time `until`, or the connection has ended."""
        if self.end:
            return False
        self.sock.settimeout(max(until - time.monotonic(), 0.001))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            self.end = "reset"
            return False
        if not data:
            self.end = "closed"
            return False
        self.rest += data
        return True

    def take(self, length):
        data, self.rest = self.rest[:length], self.rest[length:]
        return data

    def until_mark(self, mark, until):
        while mark not in self.rest:
            if not self.more(until):
                return None
        return self.take(self.rest.index(mark) + len(mark))

    def exactly(self, length, until):
        while len(self.rest) < length and self.more(until):
            pass
        return self.take(length)

    def to_end(self, until):
        while self.more(until):
            pass
        return self.take(len(self.rest))

    def send(self, data):
        """False: the peer takes nothing any more."""
        try:
            self.sock.settimeout(LIMIT_S)
            self.sock.sendall(data)
        except OSError:
            return False
        return True

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


class Message:
    """A request or response as it was read."""

    def __init__(self, head):
        lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.first = lines[0]
        self.headers = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines[1:])]
        self.body = b""
        self.trailers = ""
        self.whole = True

    def all(self, wanted):
        return [value for name, value in self.headers if name.lower() == wanted]

    def status(self):
        return int((self.first.split(" ") + ["0"])[1])


def read_message(stream, until, response=False, head_only=False):
    """The next message, or None with what was there left in `stream.rest`."""
    head = stream.until_mark(b"\r\n\r\n", until)
    if head is None:
        return None
    message = Message(head)
    if response and (head_only or message.status() in (204, 304) or message.status() < 200):
        return message
    if any("chunked" in value.lower() for value in message.all("transfer-encoding")):
        read_chunks(stream, message, until)
    elif message.all("content-length"):
        length = int(message.all("content-length")[0])
        message.body = stream.exactly(length, until)
        message.whole = len(message.body) == length
    elif response:
        message.body = stream.to_end(until)
        message.whole = stream.end == "closed"
    return message


def read_chunks(stream, message, until):
    while True:
        line = stream.until_mark(b"\r\n", until)
        try:
            size = int((line or b"").split(b";")[0], 16)
        except ValueError:
            message.whole = False
            return
        if size == 0:
            break
        message.body += stream.exactly(size, until)
        if stream.until_mark(b"\r\n", until) is None:
            message.whole = False
            return
    while (line := stream.until_mark(b"\r\n", until)) != b"\r\n":
        if line is None:
            message.whole = False
            return
        message.trailers += line.decode("latin-1")
