"""A network of this script's own, in which all connections have a congestion control that is known.

Which one a machine has changes what is compared. BBR paces: it holds back each packet until a timer says
that it is time, on the loopback device too, and in bulk transfers that can cost a proxy as much as moving the
bytes. Linux has cubic unless somebody chooses another one, so that is what is measured. In a network
namespace a route can choose it, and the machine stays as it is.
"""

import ctypes
import os
import socket
import subprocess
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# Take what the machine has.
HOST = "host"
# The loopback device of a new namespace is down. The kernel adds the route itself when it goes up.
SETUP = """
ip link set lo up
ip route replace local 127.0.0.1 dev lo table local src 127.0.0.1 scope host proto kernel congctl "$1"
"""


def enter(congestion):
    """Moves this process, and all it starts from now on, into such a network; why not, if it cannot be.

    Nothing outside of this machine can be reached afterwards.
    """
    user, group = os.geteuid(), os.getegid()
    command = ["sh", "-ec", SETUP, "sh", congestion]
    # A child tries it first: there may be no way back from a namespace in which something fails.
    try:
        trial = subprocess.run(command, preexec_fn=lambda: leave_host(user, group), capture_output=True, text=True)
    except subprocess.SubprocessError:
        return "it is not permitted"
    if trial.returncode:
        return " ".join(trial.stderr.split())
    leave_host(user, group)
    subprocess.run(command, check=True)
    return None


def leave_host(user, group):
    """Python has `os.unshare` from 3.12 on. Without root this works as the root of a namespace of users."""
    kinds = CLONE_NEWNET if user == 0 else CLONE_NEWNET | CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def congestion_control():
    """What both sides of a connection here have."""
    with socket.create_server(("127.0.0.1", 0)) as server, \
            socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        names = {end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).partition(b"\0")[0].decode()
                 for end in (client, accepted)}
    return " and ".join(sorted(names))
