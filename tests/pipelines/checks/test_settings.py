from pathlib import Path

import pytest

from pipelines.checks.rules import RULES
from pipelines.checks.settings import Settings, load
from pipelines.checks.thresholds import Thresholds
from schemas.errors import SpecError


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "rules.toml"
    file.write_text(text)
    return load(file)


def test_every_rule_has_settings_and_no_other_does() -> None:
    assert set(Thresholds.model_fields) == set(RULES)


def test_a_rule_can_be_changed_and_switched_off(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[rules.idle]\nseverity = "error"\n[rules.lag]\nseverity = "off"\n')
    assert settings.severity("idle") == "error"
    assert settings.active() == RULES.keys() - {"lag"}
    assert Settings().severity("idle") == "warning"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rules.idel]\n", "unknown key 'idel'; did you mean 'idle'?"),
        ('[rules.idle]\nseverity = "fatal"\n', "rules.idle.severity"),
        ("[rules.near_duplicate]\ndistance = -1\n", "rules.near_duplicate.distance"),
        (
            '[[accept]]\nrule = "blak_camera"\nreason = "x"\n',
            "'blak_camera'; did you mean 'black_camera'?",
        ),
        ('[[accept]]\nrule = "idle"\n', "accept"),
        ('[[accept]]\nrule = "idle"\nreason = ""\n', "reason"),
        ("[rules", "is not TOML"),
    ],
)
def test_a_wrong_rules_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        loaded(tmp_path, text)
    assert message in str(error.value)
    assert "rules.toml" in str(error.value)
