"""The helpers of the tests of training explain what goes wrong."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra finetune")

from tests.finetune.runs import in_two_processes

STUCK = """
import threading, time

def waits_forever():
    time.sleep(1000)

threading.Thread(target=waits_forever, daemon=True).start()
time.sleep(1000)
"""


@pytest.mark.slow
def test_processes_that_do_not_end_fail_with_the_stacks_of_all_their_threads(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    with pytest.raises(pytest.fail.Exception) as error:
        in_two_processes(str(tmp_path / "stuck.py"), patience=20)
    assert str(error.value).count("in waits_forever") == 2
    assert "elastic/agent" in str(error.value)
