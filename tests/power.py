"""Simulates power cuts: records the system calls of a real process with strace, and replays parts of them.

After a power cut, a file system has everything that was synced. Of the rest, any subset may be there: names (created,
renamed, removed) that no sync of their folder followed, and data that no sync of its file followed.
"""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
OF_FILE = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation on a disk; `file` is a number that stays the same when the file is renamed."""

    kind: str  # create, mkdir, rename, remove, write, truncate, sync (of a file's data), sync_names (of a folder)
    file: int = -1
    path: str = ""  # relative to the root
    target: str = ""  # the new path, if it is a rename
    offset: int = 0
    data: bytes = b""

    @property
    def folders(self) -> set[str]:
        """The folders whose names it changes."""
        return {str(Path(path).parent) for path in (self.path, self.target) if path}

    @property
    def is_name(self) -> bool:
        return self.kind in {"create", "mkdir", "rename", "remove"}


def record(command: Sequence[str], root: Path, log: Path, **options: Any) -> "Recording":
    """Run a command under strace and return what it does to the files below `root`; skips the test without strace."""
    if shutil.which("strace") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    initial = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run([*strace, *command], check=False, capture_output=True, text=True, **options)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace may not trace here")
    assert done.returncode == 0, done.stderr
    recording = Recording(initial, [])
    recording.parse(log, root)
    return recording


class Recording:
    """The files before a command, and what it did to them."""

    def __init__(self, initial: Mapping[str, bytes], ops: list[Op]) -> None:
        self.initial, self.ops = dict(initial), ops

    def parse(self, log: Path, root: Path) -> None:
        """Read the log of strace."""
        numbers = {path: number for number, path in enumerate(self.initial)}  # path -> file
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
                self._call(match[1], match[2], int(match[3]), root=root, numbers=numbers, offsets=offsets)

    def _call(
        self, name: str, arguments: str, result: int, *, root: Path, numbers: dict[str, int], offsets: dict[str, int]
    ) -> None:
        """Add the operation of one successful call, if it concerns a file below the root."""
        strings = STRING.findall(arguments)
        opened = OF_FILE.match(arguments)
        if name in PATH_CALLS:
            base = f"{_plain(opened[2])}/" if opened else ""  # a path may be relative to an open folder
            paths = [_below(path if path.startswith("/") else base + path, root) for path in map(_plain, strings)]
            if any(paths):
                self._name_call(name, arguments, paths, numbers)
            if name in OPENING:
                offsets[str(result)] = 0
        elif opened and (path := _below(_plain(opened[2]), root)) and not path.endswith(" (deleted)"):
            if name == "lseek":
                offsets[opened[1]] = result
            elif name == "write":
                data = _bytes(strings[0])[:result]
                self.ops.append(Op(kind="write", file=numbers[path], offset=offsets[opened[1]], data=data))
                offsets[opened[1]] += result
            elif name in {"fsync", "fdatasync"}:
                sync_file = path in numbers
                self.ops.append(Op(kind="sync", file=numbers[path]) if sync_file else Op(kind="sync_names", path=path))
            elif name != "close":
                raise AssertionError(f"the simulation does not know {name}({arguments[:200]})")

    def _name_call(self, name: str, arguments: str, paths: list[str | None], numbers: dict[str, int]) -> None:
        path = paths[0]
        assert path is not None, arguments
        if name in OPENING and "O_CREAT" in arguments and path not in numbers:
            numbers[path] = len(self.initial) + len(self.ops)
            self.ops.append(Op(kind="create", file=numbers[path], path=path))
        elif name in OPENING and "O_TRUNC" in arguments:
            self.ops.append(Op(kind="truncate", file=numbers[path]))
        elif name.startswith("mkdir"):
            self.ops.append(Op(kind="mkdir", path=path))
        elif name in {"unlink", "unlinkat", "rmdir"}:
            self.ops.append(Op(kind="remove", file=numbers.pop(path, -1), path=path))
        elif name.startswith("rename"):
            target = paths[1]
            assert target is not None, arguments
            numbers[target] = numbers.pop(path)
            self.ops.append(Op(kind="rename", file=numbers[target], path=path, target=target))
        elif name not in OPENING:
            raise AssertionError(f"the simulation does not know {name}({arguments[:200]})")

    # States of the disk

    def optional(self, end: int) -> list[int]:
        """List the operations before `end` that a power cut at `end` may undo."""
        synced_files: set[int] = set()
        synced_folders: set[str] = set()
        found = []
        for i in range(end - 1, -1, -1):
            op = self.ops[i]
            if op.kind == "sync":
                synced_files.add(op.file)
            elif op.kind == "sync_names":
                synced_folders.add(op.path)
            elif not (op.folders <= synced_folders if op.is_name else op.file in synced_files):
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

    def random_losses(self, count: int, seed: int) -> Iterator[set[int]]:
        """Yield random sets: a random moment, without a random part of what was not synced."""
        chance = random.Random(seed)  # noqa: S311 - not a secret
        for _ in range(count):
            end = chance.randint(1, len(self.ops))
            share = chance.choice((0.1, 0.5, 0.9))
            yield set(range(end)) - {i for i in self.optional(end) if chance.random() < share}

    def state(self, kept: set[int]) -> dict[str, bytes | None]:
        """Return the files after the operations in `kept`; folders have the content None."""
        contents = {number: bytearray(data) for number, data in enumerate(self.initial.values())}
        names: dict[str, int] = {path: number for number, path in enumerate(self.initial)}
        folders = {str(folder) for path in self.initial for folder in Path(path).parents} | {"."}
        for op in (self.ops[i] for i in sorted(kept)):
            if op.kind == "truncate":
                contents[op.file] = bytearray()
            elif op.kind == "write":
                content = contents.setdefault(op.file, bytearray())
                content.extend(bytes(max(0, op.offset + len(op.data) - len(content))))
                content[op.offset : op.offset + len(op.data)] = op.data
            elif op.kind == "mkdir":
                folders.add(op.path)
            elif op.kind == "remove" and op.path in folders:  # a new folder of this name has none of its files
                folders.remove(op.path)
                names = {path: file for path, file in names.items() if not path.startswith(f"{op.path}/")}
            elif op.is_name:
                if op.kind != "create" and names.get(op.path) == op.file:
                    del names[op.path]
                if op.kind != "remove":
                    names[op.target or op.path] = op.file

        def is_there(path: str) -> bool:
            return all(str(folder) in folders for folder in Path(path).parents)

        state: dict[str, bytes | None] = {path: None for path in folders if is_there(path)}
        return state | {path: bytes(contents.get(file, b"")) for path, file in names.items() if is_there(path)}


def restore(state: Mapping[str, bytes | None], root: Path) -> None:
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
