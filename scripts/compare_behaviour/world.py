"""What a run is made of: a directory with files that change, ports, the admin interface."""

import http.client
import json
import os
import re
import socket
import time
from collections import Counter

from .case import file_text

# How long a program may take to see that a file changed, seconds.
SEEN_LIMIT_S = 1.5
# From then on until every thread has what is new.
SPREAD_S = 0.3


def listeners(case):
    """`port`, and what else a case names with `@listener:NAME@`."""
    text = json.dumps(case.config) + json.dumps(case.files) + repr(case.clients)
    return {"port", *re.findall(r"@listener:(\w+)@", text)}


class World:
    def __init__(self, directory, ports, backends):
        self.directory = directory
        self.ports = ports
        self.backends = backends
        self.pages = 0
        self.links = 0

    def write(self, name, text):
        """A file of the directory, by rename."""
        path = self.directory / name
        new = self.directory / f"{name}.new"
        new.write_text(self.fill(text))
        new.rename(path)
        return path

    def put(self, action):
        """Changes a file, and gives the program time to see it."""
        before = self.attempts()
        text = file_text(action.resources, action.version)
        if action.way == "rename":
            self.write(action.file, text)
        elif action.way == "in place":
            (self.directory / action.file).write_text(self.fill(text))
        else:
            self.swap(action.file, text)
        until = time.monotonic() + SEEN_LIMIT_S
        while self.attempts() == before and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(SPREAD_S)

    def swap(self, name, text):
        """`DIRECTORY/FILE` is a link to `..data/FILE`, and `..data` one to another directory."""
        path = self.directory / name
        self.links += 1
        real = path.parent / f"..{self.links}"
        real.mkdir()
        (real / path.name).write_text(self.fill(text))
        new = path.parent / "..new"
        os.symlink(real.name, new)
        new.rename(path.parent / "..data")
        if not path.is_symlink():
            os.symlink(f"..data/{path.name}", path.parent / "..link")
            (path.parent / "..link").rename(path)

    def attempts(self):
        lines = admin(self.directory, "/stats?filter=update_attempt")[1].splitlines()
        return sorted(line for line in lines if ": " in line)

    def page(self, action, seen):
        """Every value of a page by itself, so that each difference is one."""
        self.pages += 1
        status, text = admin(self.directory, action.path)
        name = f"page {self.pages} {action.path}"
        seen[f"{name} status"] = str(status)
        try:
            found = json.loads(text)
        except ValueError:
            seen |= {f"{name} line {number}": line for number, line in enumerate(text.splitlines(), 1)}
            return
        # What a program was started with differs, and is compared by nobody.
        for part in found.get("configs", []) if isinstance(found, dict) else []:
            if part.get("@type", "").endswith("BootstrapConfigDump"):
                part.clear()
        flatten(name, found, seen)

    def fill(self, text):
        text = text.replace("@directory@", str(self.directory))
        marks = {"port": self.ports["port"]}
        marks |= {f"listener:{name}": port for name, port in self.ports.items()}
        marks |= {f"port:{name}": backend.port for name, backend in self.backends.items()}
        for name, port in marks.items():
            text = text.replace(f'"@{name}@"', str(port)).replace(f"@{name}@", str(port))
        return text

    def normal(self, text):
        """What differs from run to run is made equal."""
        text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID", text)
        text = re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "DATE", text)
        text = re.sub(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*Z", "TIME", text)
        text = text.replace(str(self.directory), "DIRECTORY")
        names = {port: "PORT" if name == "port" else f"PORT-{name}" for name, port in self.ports.items()}
        names |= {backend.port: f"PORT-{name}" for name, backend in self.backends.items()}
        for port, name in names.items():
            text = re.sub(rf"(?<![0-9]){port}(?![0-9])", name, text)
        return text


def flatten(name, value, seen):
    """Elements of a list are known by what they are, where they say it."""
    if isinstance(value, dict):
        for key, part in value.items():
            flatten(f"{name} {key}", part, seen)
    elif isinstance(value, list):
        labels = [label(part) for part in value]
        # Of one name there may be several, in any order.
        if len(set(labels)) < len(labels):
            value = sorted(value, key=json.dumps)
        times = Counter()
        for number, part in enumerate(value):
            known = label(part) or str(number)
            times[known] += 1
            again = f" again {times[known]}" if times[known] > 1 else ""
            flatten(f"{name} {known}{again}", part, seen)
    else:
        seen[name] = json.dumps(value) if not isinstance(value, str) else value


def label(part):
    """The last word of a type, or a name."""
    if not isinstance(part, dict):
        return None
    kind = part.get("@type", "")
    inner = next((part[key] for key in ("cluster", "listener", "route_config", "endpoint_config") if key in part), part)
    return kind.rsplit(".", 1)[-1] or inner.get("name") or inner.get("cluster_name")


def admin(directory, path):
    connection = http.client.HTTPConnection("admin", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    try:
        connection.sock.connect(str(directory / "admin.sock"))
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
