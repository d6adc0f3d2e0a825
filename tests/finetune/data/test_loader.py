"""The loader returns the contents of the datasets in the order of the sampling law, however the work is divided."""

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.augment import Augmentation, augment
from finetune.data.loader import Loader
from finetune.data.preprocessing import Preprocessing
from schemas.codec import decode
from schemas.errors import DatasetError, MixtureError, UsageError
from schemas.mixture import lock as locks
from schemas.store.dataset import open_dataset
from stats.record import Statistics
from tests.finetune.lab import first, locked, make_lab, make_loader, read
from tests.pipelines.mix.lab import again, made, make_datasets
from tests.pipelines.toy import columns, make_toy


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    make_datasets(folder)
    return folder


@pytest.fixture(scope="module")
def lock(lab: Path) -> Path:
    return locked(lab)


@pytest.fixture(scope="module")
def late(lab: Path) -> Path:
    return locked(lab, 'view = "late"')


@pytest.mark.parametrize(("history", "chunk"), [(1, 1), (1, 4), (3, 1), (2, 3), (1, 30)])
def test_every_sample_is_what_its_episode_holds(late: Path, history: int, chunk: int) -> None:
    loader = make_loader(late, batch_size=5, history=history, chunk=chunk, state=True)
    lock = loader.lock
    for batch in itertools.islice(loader, 12):
        for i in range(len(batch)):
            name = loader.sources[batch.source[i]]
            dataset = open_dataset(late.parent / name)
            episode = dataset.episode(int(batch.episode[i]), "late")
            at = int(batch.step[i]) - 1  # the view leaves out the first step
            wanted = np.arange(at, at + chunk)
            statistics = Statistics.from_json(lock.statistics[name], where=name)
            expected = statistics.norm().normalize(episode.action[wanted.clip(max=len(episode) - 1)])
            assert np.array_equal(batch.action[i], expected)
            assert batch.action_is_pad[i].tolist() == (wanted >= len(episode)).tolist()
            before = np.arange(at - history + 1, at + 1)
            assert batch.history_is_pad[i].tolist() == (before < 0).tolist()
            states = statistics.norm("state").normalize(episode.state[before.clip(0)])
            assert np.array_equal(batch.state[i], states)
            images = [decode(episode.images["image"][step]) for step in before.clip(0)]
            assert np.array_equal(batch.images["primary"][i], images)
            assert batch.instruction[i] == episode.instructions[0]
    assert not loader.broken


def test_the_order_is_the_law_of_the_lock(lab: Path) -> None:
    path = locked(lab, 'balance = "instruction"\nseed = 7')
    loader = make_loader(path, batch_size=16, cameras=())
    law, strata = read(path).law(), list(read(path).strata)
    sources, steps, _ = law.draws(0, 400)
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    for batch in itertools.islice(loader, 25):
        for i in range(16):
            k = int(batch.draw[i])
            assert loader.sources[batch.source[i]] == strata[sources[k]][0]
            place = int(batch.episode[i]), int(batch.step[i])
            assert seen.setdefault((int(sources[k]), int(steps[k])), place) == place
    assert len(set(seen.values())) > 20


@pytest.mark.parametrize(("world", "size", "threads"), [(1, 1, 0), (3, 2, 0), (2, 7, 3), (5, 1, 1)])
def test_samples_are_the_same_however_they_are_shared_out(lock: Path, world: int, size: int, threads: int) -> None:
    expected = dict(first(make_loader(lock, batch_size=10), 120))
    found: dict[int, Any] = {}
    for rank in range(world):
        loader = make_loader(lock, batch_size=size, rank=rank, world=world, threads=threads)
        own = dict(first(loader, 120 // world))
        assert not own.keys() & found.keys()
        found |= own
    assert {k: found[k] for k in range(90)} == {k: expected[k] for k in range(90)}


def test_a_position_leads_to_the_exact_next_sample_in_another_world(lock: Path) -> None:
    expected = dict(first(make_loader(lock, batch_size=10), 200))
    loader = make_loader(lock, batch_size=3, rank=1, world=2)
    for _, batch in zip(range(5), loader, strict=False):
        last = batch
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["draws"] == last.end == 30
    for world, size in ((1, 7), (4, 5)):
        found: dict[int, Any] = {}
        for rank in range(world):
            other = make_loader(lock, batch_size=size, rank=rank, world=world, threads=rank % 2)
            other.load_state_dict(state)
            found |= dict(first(other, 60 // world))
        assert sorted(found)[:60] == list(range(30, 90))
        assert all(found[k] == expected[k] for k in range(30, 90))


def test_iterating_again_goes_on(lock: Path) -> None:
    loader = make_loader(lock, batch_size=4, threads=2)
    draws = [int(next(iter(loader)).draw[0]) for _ in range(3)]
    assert draws == [0, 4, 8]


def test_a_position_in_another_order_is_refused(lock: Path, late: Path) -> None:
    state = make_loader(lock).state_dict()
    others = [make_loader(late), make_loader(lock, seed=1), make_loader(lock, chunk=3, ends="drop")]
    for loader in others:
        with pytest.raises(MixtureError, match="another order"):
            loader.load_state_dict(state)
    make_loader(lock, chunk=3).load_state_dict(state)  # a longer chunk draws the same


def test_a_position_is_refused_where_only_the_weights_differ(lab: Path) -> None:
    paths = [locked(lab, weights=f"one = {weight}\ntwo = 1.0") for weight in (1.0, 30.0)]
    with pytest.raises(MixtureError, match="another order: order differ"):
        make_loader(paths[1]).load_state_dict(make_loader(paths[0]).state_dict())


@pytest.mark.parametrize("draws", [True, -5, 10**19, None, "3", 2.0])
def test_a_position_that_no_loader_gave_is_refused(lock: Path, draws: Any) -> None:
    loader = make_loader(lock)
    with pytest.raises(MixtureError, match="expected the number that a loader saved"):
        loader.load_state_dict({**loader.state_dict(), "draws": draws})


def test_records_that_were_cut_are_computed_again(lock: Path, tmp_path: Path) -> None:
    expected = dict(first(make_loader(lock, batch_size=4, cache=tmp_path), 20))
    for path in tmp_path.rglob("*.records"):
        path.write_bytes(path.read_bytes()[: 40 if "one" in str(path) else 0])
    assert dict(first(make_loader(lock, batch_size=4, cache=tmp_path), 20)) == expected


def test_dropped_ends_are_never_drawn_and_nothing_else_is_left_out(lock: Path) -> None:
    loader = make_loader(lock, batch_size=50, chunk=4, ends="drop", cameras=())
    places = set()
    for batch in itertools.islice(loader, 40):
        assert not batch.action_is_pad.any()
        places |= set(zip(batch.source.tolist(), batch.episode.tolist(), batch.step.tolist(), strict=True))
    lengths = {0: (3, 4, 5, 6), 1: (10, 20)}
    expected = {
        (source, episode, step)
        for source, counts in lengths.items()
        for episode, length in enumerate(counts)
        for step in range(length - 3)
    }
    assert places == expected
    assert loader.steps == len(expected)


def test_what_is_held_out_comes_once_in_order(lab: Path) -> None:
    path = locked(lab, tables='[holdout]\nby = "instruction"\nshare = 0.16')
    loader = make_loader(path, part="val", batch_size=4, cameras=())
    batches = list(loader)
    assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    draws = np.concatenate([batch.draw for batch in batches])
    assert draws.tolist() == list(range(loader.steps))
    train = make_loader(path, batch_size=1, cameras=()).steps
    assert loader.steps + train == 48
    assert [len(batch) for batch in loader] == [len(batch) for batch in batches]  # and once more, if it is asked again
    shares = [make_loader(path, part="val", batch_size=4, rank=rank, world=3, cameras=()) for rank in range(3)]
    assert sorted(k for share in shares for batch in share for k in batch.draw.tolist()) == draws.tolist()
    held = {instruction for batch in batches for instruction in batch.instruction}
    drawn = {
        text
        for batch in itertools.islice(make_loader(path, batch_size=64, cameras=()), 9)
        for text in batch.instruction
    }
    assert held
    assert not held & drawn


def test_augmentation_is_a_function_of_the_draw_and_the_camera(lock: Path) -> None:
    recipe = Preprocessing(size=(16, 12), augment=Augmentation())
    plain = Preprocessing(size=(16, 12))
    changed = make_loader(lock, batch_size=3, preprocessing=recipe, history=2, seed=4)
    unchanged = make_loader(lock, batch_size=5, preprocessing=plain, history=2, seed=4)
    expected = dict(first(unchanged, 30))
    for k, found in itertools.islice(first(changed, 30), 30):
        change = Augmentation().draw(4, k)
        for ours, image in zip(found["primary"], expected[k]["primary"], strict=True):
            assert np.array_equal(np.uint8(ours), augment(np.uint8(image), change))


PARAPHRASES = """[paraphrases]
"task 0 ☂" = ["do 0"]
"task 4 ☂" = ["do 4", "four", "the fourth"]
"""


def test_a_paraphrase_is_a_function_of_the_seed_and_the_draw(lab: Path) -> None:
    path = locked(lab, tables=PARAPHRASES)
    table = read(path).paraphrases
    plain = dict(first(make_loader(path, batch_size=7, cameras=(), paraphrases=False), 420))
    expected = dict(first(make_loader(path, batch_size=10, cameras=()), 420))
    texts: dict[str, set[str]] = {}
    for k, sample in plain.items():
        texts.setdefault(sample["instruction"], set()).add(expected[k]["instruction"])
        assert {**expected[k], "instruction": sample["instruction"]} == sample
    assert texts == {text: {text, *table.get(text, ())} for text in (f"task {i} ☂" for i in range(6))}
    result: dict[int, Any] = {}
    for rank in range(3):
        result |= dict(first(make_loader(path, batch_size=4, rank=rank, world=3, threads=rank, cameras=()), 140))
    assert {k: result[k] for k in range(400)} == {k: expected[k] for k in range(400)}
    loader = make_loader(path, batch_size=3, cameras=())
    loader.load_state_dict({**loader.state_dict(), "draws": 200})
    assert dict(first(loader, 60)) == {k: expected[k] for k in range(200, 260)}
    other = dict(first(make_loader(path, batch_size=10, seed=1, cameras=()), 420))
    picks = [(a["instruction"], b["instruction"]) for k, a in expected.items() if (b := other[k])]
    assert any(one != two and two in table["task 4 ☂"] for one, two in picks)


def test_what_is_held_out_keeps_its_recorded_instructions(lab: Path) -> None:
    held_out = '[holdout]\nby = "id"\nshare = 0.6\n'
    path = locked(lab, tables=held_out)
    texts = {text for batch in make_loader(path, part="val", batch_size=4, cameras=()) for text in batch.instruction}
    table = "".join(f'"{text}" = ["x"]\n' for text in texts)
    again = locked(lab, tables=f"{held_out}[paraphrases]\n{table}")
    loader = make_loader(again, part="val", batch_size=4, cameras=())
    assert {text for batch in loader for text in batch.instruction} == texts != set()


def test_a_step_in_place_of_a_broken_one_has_a_paraphrase_of_its_own_instruction(tmp_path: Path) -> None:
    make_datasets(tmp_path)
    path = locked(tmp_path, tables=PARAPHRASES)
    broken_image(tmp_path / "two")
    options = {"corrupt": "substitute", "preprocessing": Preprocessing(size=(8, 8), like_tensorflow=False)}
    plain = dict(first(make_loader(path, batch_size=8, paraphrases=False, **options), 200))
    result = dict(first(make_loader(path, batch_size=5, **options), 200))
    table = read(path).paraphrases
    for k, sample in plain.items():
        assert result[k]["instruction"] in {sample["instruction"], *table.get(sample["instruction"], ())}


def test_dimensions_that_a_source_lacks_are_masked_zero_and_in_no_statistics(tmp_path: Path) -> None:
    make_datasets(tmp_path, {"one": (4, 5)})
    two = make_toy(tmp_path / "work", [columns(9, steps=6)])
    told = two.spec.read_text()
    for gone in (
        'gripper = "open_is_1"\n',
        'gripper = { kind = "gripper", dims = ["gripper"], unit = "1", mode = "absolute" }\n',
        'gripper = "action[3:]"\n',
    ):
        assert gone in told
        told = told.replace(gone, "")
    two.spec.write_text(told)
    assert two.convert().code == 0
    two.out.rename(tmp_path / "two")
    path = locked(tmp_path, 'dims = ["gripper", "z", "y", "x"]\naccept = ["gripper"]')
    loader = make_loader(path, batch_size=8, cameras=())
    batch = next(iter(loader))
    for i in range(8):
        name = loader.sources[batch.source[i]]
        stored = open_dataset(tmp_path / name).episode(int(batch.episode[i])).action[batch.step[i]]
        statistics = Statistics.from_json(loader.lock.statistics[name], where=name).norm()
        own = statistics.normalize(stored)
        expected = [own[3] if name == "one" else 0, own[2], own[1], own[0]]
        assert np.array_equal(batch.action[i, 0], np.float32(expected))
        assert batch.action_valid[i].tolist() == [name == "one", True, True, True]
        back = loader.norm(name).unnormalize(batch.action[i, 0])
        inside = (stored > statistics.q01[: len(stored)]) & (stored < statistics.q99[: len(stored)])
        assert np.allclose(back[::-1][: len(stored)][inside], stored[inside], atol=1e-5)
    assert loader.norm("two").mask.tolist() == [False, True, True, True]


def test_states_that_do_not_mean_the_same_are_not_put_in_one_array(tmp_path: Path) -> None:
    make_datasets(tmp_path, {"one": (4,)})
    two = make_toy(tmp_path / "work", [columns(9, steps=6)])
    metres = 'dims = ["x", "y", "z"], unit = "m", mode = "absolute"'
    told = two.spec.read_text()
    assert metres in told
    two.spec.write_text(told.replace(metres, metres.replace('"x", "y", "z"', '"u", "v", "w"'), 1))
    assert two.convert().code == 0
    two.out.rename(tmp_path / "two")
    path = locked(tmp_path)
    assert next(iter(make_loader(path))).state is None
    with pytest.raises(MixtureError, match=r"state: the sources' states differ .*: one: x, y, z; two: u, v, w"):
        make_loader(path, state=True)


def test_it_may_be_pickled_in_use(lock: Path) -> None:
    loader = make_loader(lock, batch_size=4)
    expected = dict(first(loader, 8))
    assert loader.draws == 8
    copy = pickle.loads(pickle.dumps(loader))  # noqa: S301 - it is our own
    copy.draws = 0
    assert dict(first(copy, 8)) == expected


# Bad input


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_lab(tmp_path)


def data_file(folder: Path) -> Path:
    return next((folder / "data").glob("*.parquet"))


def test_what_is_gone_or_has_changed_is_named_at_the_start(mine: Path) -> None:
    data_file(mine.parent / "one").rename(mine.parent / "elsewhere")
    again(mine.parent, "two", seed=50)
    with pytest.raises(
        MixtureError, match=r"one: data/train-.* is missing; two: the dataset has changed: it now has 1 episodes"
    ):
        make_loader(mine)


def test_a_lock_from_before_views_had_versions_says_once_what_to_run(lab: Path, tmp_path: Path) -> None:
    found, table = made(lab, 'view = "late"')
    sources = {name: source.model_copy(update={"view_digest": "0" * 64}) for name, source in found.sources.items()}
    locks.write(tmp_path / "old.lock", found.model_copy(update={"sources": sources}), table)
    with pytest.raises(MixtureError) as error:
        make_loader(tmp_path / "old.lock")
    assert str(error.value) == (
        "toy: the lock was made before views had versions and cannot be checked: "
        "run 'oxe mix lock' again with --overwrite"
    )


def test_a_file_of_another_size_is_named_at_the_start(mine: Path) -> None:
    file = data_file(mine.parent / "one")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(MixtureError, match=r"one: data/train-.* has \d+ bytes, expected \d+"):
        make_loader(mine)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_file_that_shrinks_while_it_is_in_use_is_an_error_and_no_crash(mine: Path, threads: int) -> None:
    loader = make_loader(mine, batch_size=2, threads=threads)
    iterator = iter(loader)
    next(iterator)
    for name in ("one", "two"):
        with data_file(mine.parent / name).open("r+b") as file:
            file.truncate(64)
    with pytest.raises(DatasetError, match="it was changed while in use"):
        list(itertools.islice(iterator, 20))


def test_a_disk_that_vanishes_is_an_error_that_names_the_file(mine: Path) -> None:
    loader = make_loader(mine, batch_size=2)
    (mine.parent / "two").rename(mine.parent / "gone")
    (mine.parent / "one").rename(mine.parent / "gone1")
    with pytest.raises(DatasetError, match=r"train-00000-of-00001.*No such file"):
        next(iter(loader))


def broken_image(folder: Path, *, episode: int = 0, step: int = 1) -> None:
    """Damage the pixels of one image, in place."""
    dataset = open_dataset(folder)
    path, row, _ = dataset.where(episode)
    index = dataset.file(path).index
    start, length = int(index.offsets[row + step, 0]), int(index.lengths[row + step, 0])
    with (folder / path).open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))


def test_a_broken_image_is_an_error_that_names_it(mine: Path) -> None:
    broken_image(mine.parent / "one")
    with pytest.raises(
        DatasetError, match=r"one/data/train.*: camera 'primary', row 1: damaged .the image does not have the CRC-32C"
    ):
        list(itertools.islice(make_loader(mine, batch_size=8), 20))


def test_a_broken_image_is_replaced_counted_and_named_if_that_is_asked_for(mine: Path) -> None:
    sized = Preprocessing(size=(8, 8), like_tensorflow=False)
    expected = dict(first(make_loader(mine, batch_size=8), 200))
    broken_image(mine.parent / "one")
    loaders = [
        make_loader(mine, batch_size=size, corrupt="substitute", threads=size % 3, preprocessing=sized)
        for size in (8, 5)
    ]
    found = [dict(first(loader, 200)) for loader in loaders]
    assert found[0] == {k: found[1][k] for k in found[0]}
    hit = [k for k, sample in expected.items() if (sample["source"], sample["episode"], sample["step"]) == (0, 0, 1)]
    assert len(hit) > 2
    for k, sample in expected.items():
        if k in hit:
            assert found[0][k]["source"] == 0
            assert found[0][k] != sample
        else:
            assert found[0][k] == sample
    (place,) = loaders[0].broken
    assert "row 1" in place
    assert loaders[0].broken[place] >= len(hit)


def test_a_mixture_of_broken_images_alone_is_an_error(tmp_path: Path) -> None:
    make_datasets(tmp_path, {"one": (3,), "two": (3,)})
    path = locked(tmp_path)
    for name, step in itertools.product(("one", "two"), range(3)):
        broken_image(tmp_path / name, step=step)
    with pytest.raises(DatasetError, match="the 8 steps tried before"):
        next(iter(make_loader(path, corrupt="substitute", preprocessing=Preprocessing())))


def test_missing_images_and_cameras_are_errors_or_black(tmp_path: Path) -> None:
    lengths = {"one": (4,), "two": (5,)}
    make_datasets(tmp_path, {"two": lengths["two"]})
    one = make_toy(tmp_path / "work", [columns(0, steps=4)])
    one.spec.write_text(one.spec.read_text().replace('primary = "observation.image"', 'wrist = "observation.image"'))
    assert one.convert().code == 0
    one.out.rename(tmp_path / "one")
    path = locked(tmp_path)
    with pytest.raises(MixtureError, match=r"one: no colour camera 'primary'.*missing='black'"):
        make_loader(path)
    loader = make_loader(
        path, cameras=("wrist", "primary"), missing="black", batch_size=16, preprocessing=Preprocessing(size=(8, 8))
    )
    batch = next(iter(loader))
    for i in range(16):
        names = ("wrist", "primary") if batch.source[i] == 0 else ("primary", "wrist")
        assert [bool(batch.image_is_missing[name][i, 0]) for name in names] == [False, True]
        assert [bool(batch.images[name][i].any()) for name in names] == [True, False]


def test_an_empty_part_says_what_would_fill_it(lock: Path) -> None:
    with pytest.raises(MixtureError, match=r"the part 'val' has no step to draw; add \[holdout\]"):
        make_loader(lock, part="val")
    with pytest.raises(MixtureError, match="use ends='mask'"):
        make_loader(lock, chunk=40, ends="drop")
    with pytest.raises(MixtureError, match="one has no step to draw"):
        make_loader(lock, chunk=8, ends="drop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": ("primery",)}, "did you mean 'primary'"),
        ({"chunk": 0}, "chunk 0"),
        ({"ends": "pad"}, "ends: unknown value 'pad'"),
        ({"part": "test"}, "part 'test'"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"cameras": "primary"}, "expected a tuple of different names"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 2.5}, "batch_size 2.5"),
        ({"seed": -1}, "seed -1"),
        ({"corrupt": "substitute"}, "a damaged image has none"),
    ],
)
def test_what_cannot_be_read_is_said_at_once(lock: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, MixtureError), match=message):
        make_loader(lock, **arguments)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    for name, size in (("one", 8), ("two", 16)):
        toy = make_toy(tmp_path / f"work_{name}", [columns(3, steps=5, size=size)])
        assert toy.convert().code == 0
        toy.out.rename(tmp_path / name)
    path = locked(tmp_path)
    with pytest.raises(UsageError, match="set a size in the preprocessing"):
        next(iter(make_loader(path, batch_size=12)))
    loader = make_loader(path, batch_size=12, preprocessing=Preprocessing(size=(8, 10)))
    assert next(iter(loader)).images["primary"].shape == (12, 1, 8, 10, 3)


def test_a_loader_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, finetune.data.loader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_default_reading_is_openvlas() -> None:
    assert Loader.__init__.__kwdefaults__["batch_size"] == 1
    assert Preprocessing().size == (224, 224)
    assert Preprocessing().method == "lanczos3"
