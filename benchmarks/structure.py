"""The structure of the code by its imports: units, dependencies between them, backward dependencies, and cycles.

    python benchmarks/structure.py [COMMIT ...]     without a commit: the working tree

A unit is a file or folder directly in one of the five packages; it depends on the units that it imports. Units are
ordered so that few dependencies point backwards.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools")
Graph = Mapping[str, set[str]]


def sources(commit: str | None) -> dict[str, str]:
    """Read every module of the five packages: dotted name -> source text."""
    if commit is None:
        paths = {str(path): path.read_text() for package in PACKAGES for path in Path(package).rglob("*.py")}
    else:
        listed = subprocess.check_output(["git", "ls-tree", "-r", "--name-only", commit, *PACKAGES], text=True)
        names = [name for name in listed.split("\n") if name.endswith(".py")]
        wanted = "\n".join(f"{commit}:{name}" for name in names).encode()
        batch = subprocess.run(["git", "cat-file", "--batch"], input=wanted, capture_output=True, check=True).stdout
        paths = dict(zip(names, _blobs(batch), strict=True))
    return {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): text for path, text in paths.items()}


def _blobs(batch: bytes) -> Iterator[str]:
    position = 0
    while position < len(batch):
        end = batch.index(b"\n", position)
        size = int(batch[position:end].split()[2])
        yield batch[end + 1 : end + 1 + size].decode()
        position = end + size + 2


def imports(modules: Mapping[str, str]) -> Graph:
    """Return the modules of the five packages that each module imports, also inside functions."""
    imported: dict[str, set[str]] = {}
    for module, text in modules.items():
        names = set[str]()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in modules else node.module for name in full}
        imported[module] = (names & modules.keys()) - {module}
    return imported


def between_units(graph: Graph, package: str) -> dict[str, set[str]]:
    """Return the dependencies between the units of a package."""
    units: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if module.startswith(f"{package}."):
            here = module.split(".")[1]
            there = {name.split(".")[1] for name in imported if name.startswith(f"{package}.")}
            units.setdefault(here, set()).update(there - {here})
    return units


def cycles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components with more than one node (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            cut = stack.index(node)
            groups.append(sorted(stack[cut:]))
            del stack[cut:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return [group for group in groups if len(group) > 1]


def backward(graph: Graph) -> list[tuple[str, str]]:
    """Return the edges that point backwards in a greedy order, without which there is no cycle (Eades et al. 1993)."""
    left, first, last = {*graph}, list[str](), list[str]()
    while left:
        out = {node: graph[node] & left for node in left}
        into = {node: {other for other in left if node in graph[other]} for node in left}
        if sinks := sorted(node for node in left if not out[node]):
            last[:0] = sinks
            left -= {*sinks}
        elif starts := sorted(node for node in left if not into[node]):
            first += starts
            left -= {*starts}
        else:
            node = max(sorted(left), key=lambda node: len(out[node]) - len(into[node]))
            first.append(node)
            left.remove(node)
    place = {node: i for i, node in enumerate(first + last)}
    return sorted((node, other) for node in graph for other in graph[node] if place[other] < place[node])


def table(commit: str | None) -> Iterator[str]:
    """Yield the lines of a Markdown table for one state of the code."""
    modules = sources(commit)
    graph = imports(modules)
    yield "| package | units | dependencies | backward | cycles of units | cycles of files | files | lines |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    totals = defaultdict(int)
    notes = []
    for package in PACKAGES:
        units = between_units(graph, package)
        mine = {name: {n for n in graph[name] if n.startswith(f"{package}.")} for name in modules if _of(name, package)}
        back, of_files = backward(units), cycles(mine)
        row = [
            len(units),
            sum(map(len, units.values())),
            len(back),
            len(cycles(units)),
            len(of_files),
            len(mine),
            sum(text.count("\n") for name, text in modules.items() if _of(name, package)),
        ]
        notes += [f"- {package}: {here} imports {there}" for here, there in back]
        for i, number in enumerate(row):
            totals[i] += number
        yield f"| {package} | {' | '.join(map(str, row))} |"
    yield f"| all | {' | '.join(str(totals[i]) for i in range(7))} |"
    if notes:
        yield "\nBackward dependencies:\n"
        yield from notes


def _of(module: str, package: str) -> bool:
    return module.split(".", maxsplit=1)[0] == package


def main(commits: Iterable[str]) -> None:
    """Print a table for each commit, or for the working tree."""
    for commit in [*commits] or [None]:
        print(f"\n### {commit or 'working tree'}\n")
        print("\n".join(table(commit)))


if __name__ == "__main__":
    main(sys.argv[1:])
