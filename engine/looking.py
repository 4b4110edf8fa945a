"""Looks at the files of one root, and says what is new and what is gone. For one thread; what it may wait for is room.

Gone is said late and with care: of a file that was missing in two looks, from a directory that can be read and lies on
the file system that held it, in a root that holds other files still.
"""

import os
import stat
import threading
from collections.abc import Mapping

from engine.files import shown
from engine.hints import MAX_DIRECTORIES
from engine.scan import Identity, Listing, Presence, Skip, presence, walk
from engine.settling import Departures, Mark, Settling
from engine.watched import MAX_NAMED, Arrived, Gone, Known, Notices, Outbox, Pace, Root

MAX_DEVICES = 100  # recorded numbers that are found to be others now


class Look:
    """What is known of a root while it is the same directory."""

    def __init__(
        self,
        root: Root,
        local: bool,
        known: Known,
        outbox: Outbox,
        notices: Notices,
        pace: Pace,
        stopped: threading.Event,
        identities: Mapping[bytes, Identity],
    ) -> None:
        """local: its inodes and times of change are this system's own, and it gives hints.

        identities: of every root that is there, by path, as the threads of the roots find them: to look for that here
        would wait for other roots' mounts.
        """
        self.directories: dict[bytes, Identity] = {}  # that were entered; of a root that gives hints
        self.watched: dict[bytes, Identity] = {}  # that give hints now; set by who watches
        self.fresh: set[bytes] = set()  # those that do not yet
        self.files = self.ignored = 0  # in the last whole scan
        self.unreadable: list[bytes] = []  # in the last whole scan, the first ones
        self.lost: str | None = None  # why nothing is taken for deleted
        self.scan_wanted = False  # something was left for the next whole scan
        self._root, self._local = root, local
        self._known, self._outbox, self._notices = known, outbox, notices
        self._pace, self._stopped, self._identities = pace, stopped, identities
        self._settling = Settling(root.quiet_seconds, inodes=local, limit=pace.max_files)
        # Twice the quiet time, so that a file that was moved is complete under its new name before the old one is gone.
        self._departures = Departures(2 * root.quiet_seconds, limit=pace.max_files)
        self._devices: set[tuple[int, int]] = set()  # recorded number, number now: seen on files that are unchanged
        self._device = os.stat(root.path).st_dev  # noqa: PTH116 - bytes
        self._more_gone = False

    @property
    def settling_files(self) -> int:
        """How many are not complete yet."""
        return len(self._settling)

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be looked at again soon."""
        return bool(self._settling or self._departures)

    # --- looks --------------------------------------------------------------------------------------------------------

    def whole(self) -> None:
        """Look at everything."""
        self._notices.begin()
        self.scan_wanted = False
        self.directories, self.fresh, self.unreadable = {}, set(), []
        self._devices.clear()
        files, ignored = self.below(self._root.path)
        if self._stopped.is_set():
            return
        self.files, self.ignored = files, ignored
        self._look_for_gone()
        self._notices.forget("unreadable", "link", "elsewhere")

    def below(self, top: bytes) -> tuple[int, int]:
        """Look at a directory and all below it. Returns how many files match, and how many entries are ignored."""
        files = ignored = 0
        root = self._root
        for listing in walk(top, root.names, self._problem, follow_links=root.follow_links, skip=self._is_others()):
            self._enter(listing)
            ignored += listing.ignored
            for name in listing.files:
                files += self.file(os.path.join(listing.path, name))  # noqa: PTH118 - bytes
                if self._stopped.is_set():
                    return files, ignored
            for name in listing.links:
                self._pass_by(os.path.join(listing.path, name))  # noqa: PTH118 - bytes
        return files, ignored

    def _is_others(self) -> Skip:
        """Whether a directory is another root, by name or by way of a link."""
        others = {self._identities.get(path) for path in self._root.others}
        return lambda path, identity: path in self._root.others or identity in others

    def file(self, path: bytes) -> bool:
        """Look at one file. Returns whether it is one."""
        try:
            found = os.stat(path, follow_symlinks=self._root.follow_links)  # noqa: PTH116 - bytes
        except OSError as error:
            self._problem(path, error)
        else:
            if stat.S_ISREG(found.st_mode):
                self._weigh(path, found)
                return True
        self._settling.forget(path)
        return False

    def settling(self) -> None:
        """Look at the files that are not complete, and at nothing else."""
        for path in self._settling.paths():
            if self._stopped.is_set():
                return
            self.file(path)
        if self._settling.turned_away:
            self._settling.turned_away = False
            self.scan_wanted = True

    def hinted(self, path: bytes) -> None:
        """Look at what has changed, in a directory that was entered before."""
        directory, name = os.path.split(path)
        if directory not in self.directories or not self._root.owns(path):
            return
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            self._left(path)
            return
        if stat.S_ISDIR(mode) and not self._root.names.passes_over(name):
            self._forget_directory(path)
            self._entered_by_hint(path)
        elif stat.S_ISLNK(mode):
            self._forget_directory(path)
            self.scan_wanted = self.scan_wanted or self._root.follow_links
        elif self._root.names.takes(name):
            self.file(path)

    def _entered_by_hint(self, path: bytes) -> None:
        if self._root.follow_links:
            self.scan_wanted = True  # only from the root down can it be told where a loop begins
        else:
            self.below(path)

    # --- what is there ------------------------------------------------------------------------------------------------

    def _enter(self, listing: Listing) -> None:
        if self._local and len(self.directories) <= MAX_DIRECTORIES:
            self.directories[listing.path] = listing.identity
            if self.watched.get(listing.path) != listing.identity:
                self.fresh.add(listing.path)

    def _forget_directory(self, path: bytes) -> None:
        """It is another one now, or none: what was known of it and all below it does not hold."""
        if path not in self.directories:
            return
        below = path + b"/"
        for each in [each for each in self.directories if each == path or each.startswith(below)]:
            del self.directories[each]
            self.watched.pop(each, None)
            self.fresh.discard(each)

    def _weigh(self, path: bytes, found: os.stat_result) -> None:
        """Say that it has arrived, if that is so."""
        self._departures.back(path)
        mark = Mark(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)
        is_first = path not in self._settling
        if is_first and self._is_known(path, mark):
            return
        # The clock of another host, and of a network mount below a local root, says nothing about ours.
        ctime_ns = found.st_ctime_ns if self._local and found.st_dev == self._device else None
        complete_seconds = self._settling.see(path, mark, ctime_ns, self._pace.now())
        if complete_seconds is not None and (is_first or not self._is_known(path, mark)):
            arrived = Arrived(path, self._root.path, self._root.priority, complete_seconds)
            self._outbox.put(arrived, mark, self._stopped)

    def _is_known(self, path: bytes, mark: Mark) -> bool:
        """Whether it has been said or recorded as it is."""
        # In this order: what the supervisor settles, it records before.
        if self._outbox.holds(path, mark, self._local):
            return True
        record = self._known.mark(path)
        if record is None or record.state == "gone" or not mark.same_content(record, self._local):
            return False
        if record.device != mark.device and record.inode == mark.inode and len(self._devices) < MAX_DEVICES:
            self._devices.add((record.device, mark.device))
        return True

    def _pass_by(self, path: bytes) -> None:
        """Say that a link was not followed, if it is one that people may wonder about."""
        if self._notices.full("link") or not (self._root.names.takes(os.path.basename(path)) or os.path.isdir(path)):  # noqa: PTH112, PTH119
            return
        target, root = os.path.realpath(path), os.path.realpath(self._root.path)
        if os.path.commonpath([target, root]) != root:
            text = f"{shown(path)}: this link leaves the root and was not followed; watch.follow_links would do that"
            self._notices.say("link", text, path)

    def _problem(self, path: bytes, error: OSError) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return  # it went away meanwhile
        if len(self.unreadable) < MAX_NAMED and path not in self.unreadable:
            self.unreadable.append(path)
        text = f"{shown(path)}: {error.strerror or error}; it is left out until that has changed"
        self._notices.say("unreadable", text, path)

    # --- what is not there --------------------------------------------------------------------------------------------

    def _left(self, path: bytes) -> None:
        """Something that was in an entered directory is not."""
        self._settling.forget(path)
        record = self._known.mark(path)
        if record is not None and record.state != "gone":
            self._miss(path, record.device)
        if path in self.directories:
            self._forget_directory(path)
            self._miss_below(path)

    def _look_for_gone(self) -> None:
        self.lost = None
        self._more_gone = False
        if self.files:
            self._miss_below(self._root.path)
            return
        self._departures.clear()
        for path, device in self._known.paths_below(self._root.path):
            if self._root.owns(path):
                self._say_empty(path, device)
                return

    def _miss_below(self, directory: bytes) -> None:
        for path, device in self._known.paths_below(directory):
            if self._stopped.is_set():
                return
            if self._departures.full:
                self._more_gone = True
                return
            if self._root.owns(path):
                self._miss(path, device)

    def _miss(self, path: bytes, device: int) -> None:
        if self._outbox.holds(path, None, self._local):
            return
        found, directory = presence(path, device, self._root.path, self._is_same_device)
        match found:
            case Presence.GONE:
                self._departures.miss(path, device, self._pace.monotonic())
                return
            case Presence.ELSEWHERE:
                self._say_elsewhere(directory)
        self._departures.back(path)

    def missing(self) -> None:
        """Look again for files that were missing a while ago, and say which are gone."""
        due = self._departures.due(self._pace.monotonic())
        if due and not self._holds_any():
            self._departures.clear()
            self._say_empty(*due[0])
            return
        for path, device in due:
            if self._stopped.is_set():
                return
            self._departures.back(path)
            found, _ = presence(path, device, self._root.path, self._is_same_device)
            if found is Presence.GONE and self._is_recorded(path):
                self._outbox.put(Gone(path, self._root.path), None, self._stopped)
        if due and self._more_gone:
            self._look_for_gone()

    def _is_recorded(self, path: bytes) -> bool:
        record = self._known.mark(path)
        return record is not None and record.state != "gone"

    def _is_same_device(self, recorded: int, now: int) -> bool:
        return recorded == now or (recorded, now) in self._devices

    def _holds_any(self) -> bool:
        """Whether the root holds any file that matches."""
        root = self._root
        skip = self._is_others()
        for listing in walk(root.path, root.names, lambda path, error: None, follow_links=root.follow_links, skip=skip):
            if any(os.path.isfile(os.path.join(listing.path, name)) for name in listing.files):  # noqa: PTH113, PTH118
                return True
        return False

    def _say_empty(self, path: bytes, device: int) -> None:
        """The root holds no file that matches, but did: this one, and maybe more."""
        found, directory = presence(path, device, self._root.path, self._is_same_device)
        if found is Presence.ELSEWHERE:
            self._say_elsewhere(directory)
        no_file = "it holds no file any more" if found is not Presence.UNSURE else "its files cannot be looked for"
        self.lost = self.lost or no_file
        self._notices.say(
            "lost",
            f"{shown(self._root.path)}: {self.lost}, and nothing is taken for deleted; "
            "if its files are not to come back, use the command `forget`",
        )

    def _say_elsewhere(self, directory: bytes) -> None:
        """A known file is missing, and the file system that held it, too."""
        if directory == self._root.path:
            self.lost = "another file system is there"
        self._notices.say(
            "elsewhere",
            f"{shown(directory)}: another file system is there than the one that held known files; "
            "they are not taken for deleted, in case it comes back",
            directory,
        )
