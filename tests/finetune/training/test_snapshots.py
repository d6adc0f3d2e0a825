"""A checkpoint is there whole or not at all."""

import re
from pathlib import Path

import pytest

from schemas.errors import CheckpointError, TrainingError
from schemas.files import durable

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from finetune.training.parallel import TrainingProcess  # noqa: E402 - only where torch is
from finetune.training.snapshots import (  # noqa: E402
    STATE,
    Position,
    load_weights,
    position,
    restore,
    save,
    save_weights,
    snapshots,
    sweep,
    writing,
)

HERE = TrainingProcess(0, 1, torch.device("cpu"))
WHERE = Position(step=3, loader={"draws": 24, "seed": 0}, sums=[0.1, 1 / 3])


def trained(steps: int = 3) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].bias.requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def restored(folder: Path) -> None:
    model, optimizer = trained(steps=0)
    load_weights(folder, model)
    restore(folder, model, optimizer, here=HERE)


def step(model: torch.nn.Module, optimizer: torch.optim.AdamW) -> None:
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def saved(out: Path, number: int = 3) -> Path:
    model, optimizer = trained()
    folder = out / f"step-{number:08d}"
    with writing(folder) as temporary:
        (temporary / STATE).mkdir()
        save_weights(temporary, dict(model.named_parameters()))
        save(temporary, model, optimizer, here=HERE, position=WHERE)
    return folder


def test_everything_that_decides_the_next_step_is_restored_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = saved(tmp_path)
    other, theirs = trained(steps=0)
    torch.manual_seed(1)
    load_weights(folder, other)
    restore(folder, other, theirs, here=HERE)
    torch.manual_seed(0)
    trained()  # the random state is now that after three steps, as when it was saved
    step(model, optimizer)
    restore(folder, other, theirs, here=HERE)
    step(other, theirs)
    for ours, again in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.equal(again)
    assert position(folder) == WHERE


def test_what_breaks_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match="step-00000001: cannot be written"),
        writing(tmp_path / "step-00000001") as folder,
    ):
        folder.write_text("no text goes there")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_killed_while_it_was_written_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    kept = saved(tmp_path)
    (tmp_path / durable.temporary_name() / STATE).mkdir(parents=True)
    assert snapshots(tmp_path) == [kept]
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    folders = [saved(tmp_path, number) for number in (5, 30, 200)]
    sweep(tmp_path, keep=2)
    assert snapshots(tmp_path) == folders[1:]


@pytest.mark.parametrize("name", ["exp_avg.safetensors", "rng.safetensors", "position.json", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b'{"step": 1}', b"\xff" * 64], ids=["empty", "short", "noise"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = saved(tmp_path)
    (folder / STATE / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        restored(folder)


def test_weights_that_are_missing_are_counted(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    save_weights(folder, {"0.weight": torch.zeros(4, 3)})
    with pytest.raises(CheckpointError, match=r"2 trained weights are missing, for example 1\.bias"):
        load_weights(folder, trained(steps=0)[0])
