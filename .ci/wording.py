"""Refuse phrases that CONTRIBUTING.md replaces by plain ones, names that say nothing, and names with two meanings.

    python .ci/wording.py [PATH ...]     without paths: every file that git tracks

Prints one line for each finding, `path:line: what it is: what to write instead`, and exits with 1 if there are any.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools")
PHRASES = {  # a regular expression, without regard to case, and what to write instead
    r'^\s*r?"""(give|say|tell)s?\b': "'Return ...' or 'Whether ...'",
    r"\b(what|that|which|it|one|who) (is|are|was) no (?!longer\b|more\b|other\b)": "'is not a ...'",
    r"\bwho (counts|reads|goes|writes|asks)\b": "name the person or the thing: 'a wrong rate gives wrong times'",
    r"\bbehind\b(?! (any |an? |the |its )?(fsspec|uri|proxy|server|load|network))": "'after', 'beside', 'past'",
    r"\b(tells? nobody|nobody else)\b": "'no-op', 'only X'",
    r"\bfor who\b": "name the reader",
    r"\bgo(es)? on (?=(where|there|with|from|as|to|at)\b)": "'continue'",
    r"\breckon": "'estimate', 'compute'",
    r"\bin vain\b": "'wasted'",
    r"\bfirst (one )?in the alphabet\b": "'the alphabetically first wins'",
    r"\bworth a word\b": "'significant'",
    r"# of (?!\w+ \()": "a comment is a sentence or a noun: '# tolerance in 1/255'",
    r"\bof other (dimensions|units|formats|shapes|kinds)\b": "'with different units'",
    r"\bstands? (behind|beside)\b": "'is beside', 'is supported by'",
    r"\blies? (behind|beside|there|elsewhere|here)\b": "'is'",
    r"\b(as|is|are|was|were|been) told\b": "'reported', 'declared', 'given'",
    r"\bhands? (out|over)\b": "'returns', 'passes'",
    r"\bso far as\b|\bas far as\b": "'if', 'where'",
    r"\bwhat .{1,40} became\b": "'the outcome of'",
    r"\bis one that\b": "say it directly",
}
NAMES = {"told", "found", "held", "made", "asked"}  # how a thing was come by is not its name
TWICE = {"LockedSource": "one source of a lock, as the lock file has it and as the loader opened it"}  # name -> reason
SKIPPED = ("docs/adr/", "tests/golden/", "tests/data/", ".ci/wording.py", "CONTRIBUTING.md", "finetune/models/words.py")


def findings(path: Path) -> Iterator[str]:
    """Find what to change in one file."""
    text = path.read_text()
    for number, line in enumerate(text.split("\n"), 1):
        for pattern, instead in PHRASES.items():
            if match := re.search(pattern, line, re.IGNORECASE):
                yield f"{path}:{number}: '{match[0].strip()}': {instead}"
    if path.suffix == ".py" and path.parts[0] in PACKAGES:
        for node in ast.walk(ast.parse(text)):
            name = getattr(node, "arg", None) if isinstance(node, ast.arg) else None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                name = node.attr
            if name in NAMES:
                yield f"{path}:{node.lineno}: a variable called '{name}': name the thing"


def class_names(paths: list[Path]) -> Iterator[str]:
    """Find classes of one name in several files."""
    places = defaultdict[str, list[str]](list)
    for path in paths:
        if path.suffix == ".py" and path.parts[0] in PACKAGES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(f"{path}:{node.lineno}")
    for name, where in sorted(places.items()):
        if len(where) > 1 and not (name in TWICE and len(where) == 2):
            yield f"{where[0]}: class {name} is also in {', '.join(where[1:])}: one name, one meaning"


def main(arguments: list[str]) -> int:
    """Check files; returns the exit code."""
    listed = arguments or subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).split()
    paths = [Path(name) for name in listed if name.endswith((".py", ".md", ".toml")) and not name.startswith(SKIPPED)]
    paths = [path for path in paths if path.is_file()]
    problems = [line for path in paths for line in findings(path)]
    problems += class_names(paths) if not arguments else []
    print("\n".join(problems) or f"{len(paths)} files: plain English")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
