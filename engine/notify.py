"""Tells the service manager how the daemon is: the datagrams of sd_notify(3). Without NOTIFY_SOCKET nothing is done.

The manager may be busy, or gone: what it does not take within a second is lost, and no reason to stop. Each function
says whether the manager was told.
"""

import os
import socket
import time
from collections.abc import Callable

PATIENCE_SECONDS = 1.0
SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"


def ready() -> bool:
    """The daemon works, for the first time or again after `reloading`."""
    return _send("READY=1")


def reloading(clock_ns: Callable[[], int] = time.monotonic_ns) -> bool:
    """The configuration is read again; `ready` ends it. The manager tells by the time that it is an answer to it."""
    return _send(f"RELOADING=1\nMONOTONIC_USEC={clock_ns() // 1000}")


def stopping() -> bool:
    """The daemon drains."""
    return _send("STOPPING=1")


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return _send(f"STATUS={' '.join(text.split())}")


def watchdog() -> bool:
    """The daemon is alive. To be sent at least twice in `watchdog_seconds`."""
    return _send("WATCHDOG=1")


def watchdog_seconds() -> float | None:
    """After what silence the manager ends us (WatchdogSec); None: never."""
    microseconds = os.environ.get(WATCHDOG, "")
    if not microseconds.isdecimal() or os.environ.get(WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 or None


def _send(message: str) -> bool:
    name = os.environ.get(SOCKET)
    if not name:
        return False
    address = f"\0{name[1:]}" if name.startswith("@") else name  # the abstract name space of Linux
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
        datagram.settimeout(PATIENCE_SECONDS)
        try:
            datagram.sendto(message.encode(errors="replace"), address)
        except OSError:
            return False
    return True
