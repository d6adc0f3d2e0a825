"""The learning rate is a function of the step."""

import pytest

from finetune.recipe import OptimizerRecipe, load
from finetune.training.schedule import rate
from schemas.errors import SpecError


def rates(steps: int, **told: object) -> list[float]:
    optimizer = OptimizerRecipe(**{"lr": 1.0, **told})  # type: ignore[arg-type]
    return [rate(optimizer, step, steps=steps) for step in range(steps)]


def test_a_constant_rate_is_constant() -> None:
    assert rates(3) == [1.0, 1.0, 1.0]


def test_a_warm_up_is_that_of_openvla_oft() -> None:
    lr, warmup = 0.5, 4
    expected = [lr * (0.1 + 0.9 * min((step + 1) / warmup, 1)) for step in range(8)]  # its finetune.py
    assert rates(8, lr=lr, warmup=warmup) == pytest.approx(expected)


def test_linear_and_cosine_fall_to_nothing_after_the_warm_up() -> None:
    assert rates(6, schedule="linear", warmup=2) == pytest.approx([0.55, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert rates(6, schedule="cosine", warmup=2) == pytest.approx([0.55, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_milestones_act_after_a_warm_up_too() -> None:
    told = {"schedule": "multistep", "milestones": (3, 5), "gamma": 0.1, "warmup": 2}
    assert rates(7, **told) == pytest.approx([0.55, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "multistep"])
def test_it_is_what_torch_computes(schedule: str) -> None:
    torch = pytest.importorskip("torch", reason="the oracle")
    own = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedulers = torch.optim.lr_scheduler
    theirs = {
        "constant": lambda: schedulers.ConstantLR(own, factor=1.0),
        "linear": lambda: schedulers.LinearLR(own, start_factor=1.0, end_factor=1e-12, total_iters=10),
        "cosine": lambda: schedulers.CosineAnnealingLR(own, T_max=10),
        "multistep": lambda: schedulers.MultiStepLR(own, milestones=[4, 8], gamma=0.1),
    }[schedule]()
    milestones = (4, 8) if schedule == "multistep" else ()
    for ours in rates(10, lr=0.3, schedule=schedule, milestones=milestones):
        assert ours == pytest.approx(own.param_groups[0]["lr"], abs=1e-9)
        own.step()
        theirs.step()


def of_openvla_oft(steps: int, *, lr: float, warmup: int, milestones: tuple[int, ...], resets: bool) -> list[float]:
    """Run the loop of OpenVLA-OFT's finetune.py. If not `resets`, the warm-up stops to set the rate when it is over."""
    torch = pytest.importorskip("torch", reason="the oracle")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=list(milestones), gamma=0.1)
    result = []
    for step in range(steps):
        if warmup > 0 and (resets or step < warmup):
            progress = min((step + 1) / warmup, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * (0.1 + 0.9 * progress)
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


@pytest.mark.parametrize(("warmup", "milestones"), [(1, (2,)), (3, (5,)), (4, (6, 9)), (5, (3, 5)), (10, (4,))])
def test_the_original_warm_up_can_be_repeated_with_its_fault_or_without(
    warmup: int, milestones: tuple[int, ...]
) -> None:
    options: dict[str, object] = {"lr": 0.3, "schedule": "multistep", "warmup": warmup, "milestones": milestones}
    theirs = of_openvla_oft(12, lr=0.3, warmup=warmup, milestones=milestones, resets=True)
    assert rates(12, **options, warmup_like_original=True) == pytest.approx(theirs, rel=1e-12)
    assert theirs[-1] == pytest.approx(0.3)  # it never falls
    if warmup <= min(milestones):
        right = of_openvla_oft(12, lr=0.3, warmup=warmup, milestones=milestones, resets=False)
        assert rates(12, **options) == pytest.approx(right, rel=1e-12)
        assert right[-1] < 0.031


@pytest.mark.parametrize("options", ["warmup = 2", 'schedule = "multistep"\nmilestones = [3]', 'schedule = "cosine"'])
def test_the_original_warm_up_is_refused_where_it_would_change_nothing(options: str) -> None:
    text = f'name = "x"\n[model]\nbase = "tiny"\n[optimizer]\n{options}\n'
    load(text, where="x.toml")
    with pytest.raises(SpecError, match=r'warmup_like_original: requires warmup and schedule = "multistep"'):
        load(f"{text}warmup_like_original = true", where="x.toml")
