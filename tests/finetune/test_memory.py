"""Memory that does not suffice is said with what to lower; other errors stay what they are."""

import pytest

from schemas.errors import TrainingError

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.memory import enough_memory  # noqa: E402 - only where torch is


def test_too_little_memory_says_what_to_lower() -> None:
    told = r"out of memory \(.*allocate memory.*\); lower train.micro"
    with pytest.raises(TrainingError, match=told), enough_memory(TrainingError, "lower train.micro"):
        torch.empty(1 << 62, dtype=torch.uint8)
    told = r"out of memory \(CUDA out of memory\); lower it"
    with pytest.raises(TrainingError, match=told), enough_memory(TrainingError, "lower it"):
        raise torch.OutOfMemoryError("CUDA out of memory\nand a page of advice")


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape"), enough_memory(TrainingError, "lower it"):
        raise RuntimeError("shape")
