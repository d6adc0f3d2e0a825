"""10,000 damaged inputs, in blocks; a run continues after the last finished block."""

from tests.fuzz import damage
from tests.torture.results import Trials, todo

BLOCK, BLOCKS = 250, 40


def main() -> None:
    """Run the blocks that are not finished, and write the counts of inputs after each."""
    done = Trials("damage")
    names = [f"inputs/{seed}" for seed in range(BLOCKS)]
    for name in todo(done, names):
        result = damage.main(BLOCK, int(name.rpartition("/")[2]))
        wrong = [*result["findings"], *result["unforeseen"]]
        done.add(name, str(wrong) if wrong else "")
        print(f"damage: {name}: {len(wrong)} findings", flush=True)  # noqa: T201
        done.summarize(BLOCKS, each=BLOCK)


if __name__ == "__main__":
    main()
