"""Simulates power cuts: records the system calls of a real process with strace, and replays parts of them.

After a power cut, a file system has everything that was synced. Of the rest, any subset may be there: names (created,
renamed, removed) that no sync of their folder followed, and data that no sync of its file followed.
"""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

CALLS = (
    "open,openat,creat,close,lseek,write,pwrite64,writev,pwritev,sendfile,copy_file_range,rename,renameat,renameat2,"
    "unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,truncate,ftruncate,fallocate,fsync,fdatasync"
)
OPENING = {"open", "openat", "creat"}
PATH_CALLS = {
    *OPENING,
    *(name for name in CALLS.split(",") if re.match("rename|unlink|rmdir|mkdir|link|symlink", name)),
}
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(?:<.*>)?(?: .*)?")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
ROOT = 0  # the number of the folder below which everything is
TEMPORARY = re.compile(r".*tmp-oxe-[0-9a-f]{32}")
Place = tuple[int, str]  # folder, name in it
State = dict[str, bytes | None]  # path relative to the root -> content; None for a folder
OF_FILE = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation on a disk. A file or folder is a number, which stays the same when it is renamed."""

    kind: str  # create, mkdir, rename, remove, write, truncate, sync (of a file's data, or of the names in a folder)
    file: int
    places: tuple[Place, ...] = ()  # the name that is made or removed; for a rename, the old and the new one
    offset: int = 0  # for a truncation, the new size
    data: bytes = b""

    @property
    def changes(self) -> set[int]:
        """What must be synced to make it durable: the folders whose names it changes, or else the file."""
        return {folder for folder, _ in self.places} or {self.file}


def record(command: Sequence[str], root: Path, log: Path, **options: Any) -> "Recording":
    """Run a command under strace and return what it does to the files below `root`; skips the test without strace."""
    if shutil.which("strace") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    initial = {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")
    }
    strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run([*strace, *command], check=False, capture_output=True, text=True, **options)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace may not trace here")
    assert done.returncode == 0, done.stderr
    recording = Recording(initial)
    recording.parse(log, root)
    return recording


class Recording:
    """The files before a command, and what it did to them."""

    def __init__(self, initial: State) -> None:
        self.ops: list[Op] = []
        self.contents: dict[int, bytes] = {}  # before the command
        self.entries: dict[Place, int] = {}  # before the command
        self.folders = {ROOT}
        self.numbers = {".": ROOT}  # path -> file or folder, after the part of the log that was parsed
        self._new = count(ROOT + 1)
        for path, content in sorted(initial.items()):
            number = self._add(path, is_folder=content is None)
            self.contents[number] = content or b""
            self.entries[self._place(path)] = number

    def _add(self, path: str, *, is_folder: bool) -> int:
        number = self.numbers[path] = next(self._new)
        if is_folder:
            self.folders.add(number)
        return number

    def _place(self, path: str) -> Place:
        return self.numbers[str(Path(path).parent)], Path(path).name

    def parse(self, log: Path, root: Path) -> None:
        """Read the log of strace."""
        offsets: dict[str, int] = {}  # descriptor -> offset
        waiting: dict[str, str] = {}  # thread -> start of a call that another thread interrupted in the log
        for text in log.read_text().splitlines():
            thread, _, line = text.partition(" ")
            if "<unfinished ...>" in line:
                waiting[thread] = line.partition("<unfinished ...>")[0].strip()
                continue
            if resumed := re.match(r" *<\.\.\. \w+ resumed>(.*)", line):
                line = waiting.pop(thread) + resumed[1]
            match = LINE.fullmatch(line.strip())
            if match and int(match[3]) >= 0:
                self._call(match[1], match[2], int(match[3]), root=root, offsets=offsets)

    def _call(self, name: str, arguments: str, result: int, *, root: Path, offsets: dict[str, int]) -> None:
        """Add the operation of one successful call, if it concerns a file below the root."""
        strings = STRING.findall(arguments)
        opened = OF_FILE.match(arguments)
        if name in PATH_CALLS:
            base = f"{_plain(opened[2])}/" if opened else ""  # a path may be relative to an open folder
            paths = [_below(path if path.startswith("/") else base + path, root) for path in map(_plain, strings)]
            if any(paths):
                self._name_call(name, arguments, paths)
            if name in OPENING:
                offsets[str(result)] = 0
        elif (
            opened and name != "close" and (path := _below(_plain(opened[2]), root)) and not path.endswith(" (deleted)")
        ):
            number = self.numbers[path]
            if name == "lseek":
                offsets[opened[1]] = result
            elif name == "write":
                data = _bytes(strings[0])[:result]
                self.ops.append(Op(kind="write", file=number, offset=offsets[opened[1]], data=data))
                offsets[opened[1]] += result
            elif name == "ftruncate":
                self.ops.append(Op(kind="truncate", file=number, offset=int(arguments.rpartition(",")[2])))
            elif name in {"fsync", "fdatasync"}:
                self.ops.append(Op(kind="sync", file=number))
            else:
                raise AssertionError(f"the simulation does not know {name}({arguments[:200]})")

    def _name_call(self, name: str, arguments: str, paths: list[str | None]) -> None:
        path = paths[0]
        assert path is not None, arguments
        if name in OPENING and "O_CREAT" in arguments and path not in self.numbers:
            self.ops.append(Op(kind="create", file=self._add(path, is_folder=False), places=(self._place(path),)))
        elif name in OPENING and "O_TRUNC" in arguments:
            self.ops.append(Op(kind="truncate", file=self.numbers[path]))
        elif name.startswith("mkdir"):
            self.ops.append(Op(kind="mkdir", file=self._add(path, is_folder=True), places=(self._place(path),)))
        elif name in {"unlink", "unlinkat", "rmdir"}:
            self.ops.append(Op(kind="remove", file=self.numbers.pop(path), places=(self._place(path),)))
        elif name.startswith("rename"):
            target = paths[1]
            assert target is not None, arguments
            self.ops.append(Op(kind="rename", file=self.numbers[path], places=(self._place(path), self._place(target))))
            for old in [old for old in self.numbers if old == path or old.startswith(f"{path}/")]:
                self.numbers[target + old.removeprefix(path)] = self.numbers.pop(old)
        elif name not in OPENING:
            raise AssertionError(f"the simulation does not know {name}({arguments[:200]})")

    # States of the disk

    def optional(self, end: int) -> list[int]:
        """List the operations before `end` that a power cut at `end` may undo."""
        synced: set[int] = set()
        found = []
        for i in range(end - 1, -1, -1):
            op = self.ops[i]
            if op.kind == "sync":
                synced.add(op.file)
            elif not op.changes <= synced:
                found.append(i)
        return found

    def prefixes(self) -> Iterator[set[int]]:
        """Yield each set of operations that a kill leaves."""
        for end in range(len(self.ops) + 1):
            yield set(range(end))

    def single_losses(self) -> Iterator[set[int]]:
        """Yield the sets in which one rename or removal is missing: the last moment before it is synced."""
        ends: dict[int, int] = {}
        for end in range(len(self.ops) + 1):
            for i in self.optional(end):
                ends[i] = end
        for i, end in ends.items():
            if self.ops[i].kind in {"rename", "remove"}:
                yield set(range(end)) - {i}

    def random_losses(self, number: int, seed: int) -> Iterator[set[int]]:
        """Yield random sets: a random moment, without a random part of what was not synced."""
        chance = random.Random(seed)  # noqa: S311 - not a secret
        for _ in range(number):
            end = chance.randint(1, len(self.ops))
            share = chance.choice((0.1, 0.5, 0.9))
            yield set(range(end)) - {i for i in self.optional(end) if chance.random() < share}

    def wrong(self, states: Iterable[set[int]], resume: Callable[[State], str]) -> dict[str, str]:
        """Resume each different state; returns those that ended wrong, with why.

        `resume` returns what was wrong, or ''. States are alike if they only differ in the contents of temporary files
        and folders, which the next run removes by their names.
        """
        seen, failures = set[int](), dict[str, str]()
        for kept in states:
            state = self.state(kept)
            read = ((path, content) for path, content in state.items() if not TEMPORARY.search(path))
            left = ((match[0], None) for path in state if (match := TEMPORARY.search(path)))
            key = hash(frozenset((*read, *left)))
            if key not in seen and (why := resume(state)):
                lost = sorted(set(range(max(kept, default=0))) - kept)
                failures[f"until {max(kept, default=0)}, without {lost}"] = why
            seen.add(key)
        return failures

    def state(self, kept: set[int]) -> State:
        """Return the files after the operations in `kept`; folders have the content None."""
        contents = {number: bytearray(data) for number, data in self.contents.items()}
        entries = dict(self.entries)
        for op in (self.ops[i] for i in sorted(kept)):
            if op.kind == "truncate":
                content = contents.setdefault(op.file, bytearray())
                contents[op.file] = content[: op.offset].ljust(op.offset, b"\0")
            elif op.kind == "write":
                content = contents.setdefault(op.file, bytearray())
                content.extend(bytes(max(0, op.offset + len(op.data) - len(content))))
                content[op.offset : op.offset + len(op.data)] = op.data
            elif op.kind in {"rename", "remove"} and entries.get(op.places[0]) == op.file:
                del entries[op.places[0]]
            if op.kind in {"create", "mkdir", "rename"}:
                entries[op.places[-1]] = op.file
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), number in entries.items():
            below.setdefault(folder, []).append((name, number))
        state: State = {".": None}
        waiting = [(ROOT, "")]
        while waiting:
            folder, before = waiting.pop()
            for name, number in below.get(folder, []):
                is_folder = number in self.folders
                state[before + name] = None if is_folder else bytes(contents.get(number, b""))
                if is_folder:
                    waiting.append((number, f"{before}{name}/"))
        return state


def restore(state: State, root: Path) -> None:
    """Make the folder `root` have the files of a state and no others."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, content in sorted(state.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(content)


def _plain(text: str) -> str:
    return os.fsdecode(_bytes(text))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _below(path: str, root: Path) -> str | None:
    """Return a path relative to the root; None if it is not below it."""
    if path == str(root):
        return "."
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None
