"""Random power cuts of conversions, exports and trainings, in blocks; a run continues after the last finished block."""

import argparse
import os
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.finetune.training.test_power_cut import TRAININGS, RecordedTraining
from tests.pipelines.convert.test_power_cut import STATES, RecordedRun
from tests.torture.results import Trials, todo

BLOCK = 50
BLOCKS = {**dict.fromkeys(STATES, 20), **dict.fromkeys(TRAININGS, 4)}  # blocks for each kind of run


def main() -> None:
    """Run the blocks that are not finished, for a limited time, and write the counts of states after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200)
    until = time.monotonic() + parser.parse_args().seconds
    done = Trials("cuts")
    names = [f"{kind}/{seed}" for kind, count in BLOCKS.items() for seed in range(count)]
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:

        @cache
        def recorded(kind: str) -> RecordedRun | RecordedTraining:
            return (RecordedTraining if kind in TRAININGS else RecordedRun)(Path(folder) / kind.replace(" ", "-"), kind)

        for name in todo(done, names):
            if time.monotonic() > until:
                break
            kind, _, seed = name.partition("/")
            run = recorded(kind)
            wrong = run.recording.wrong(run.recording.random_losses(BLOCK, seed=1000 + int(seed)), run.resume)
            done.add(name, str(wrong) if wrong else "")
            print(f"cuts: {name}: {len(wrong)} findings", flush=True)  # noqa: T201
            done.summarize(len(names), each=BLOCK)


if __name__ == "__main__":
    main()
