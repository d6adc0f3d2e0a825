"""The rules file of `oxe check`: thresholds and severities of rules, and findings that are known and accepted."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipelines.checks.rules import RULES
from pipelines.checks.thresholds import Level, Thresholds
from schemas.declarations import toml
from schemas.declarations.spec import validated
from schemas.declarations.tables import Model
from schemas.errors import did_you_mean


class Accept(Model):
    """Findings that are known and accepted."""

    rule: str
    reason: Annotated[str, Field(min_length=1)]
    dataset: str | None = None  # default: every dataset
    episodes: tuple[int, ...] | None = None  # default: every episode

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.rule not in RULES:
            raise ValueError(f"unknown rule '{self.rule}'{did_you_mean(self.rule, RULES)}")
        return self


class Settings(Model):
    """A rules file."""

    rules: Thresholds = Thresholds()
    accept: tuple[Accept, ...] = ()

    def severity(self, rule: str) -> Level:
        """Return the severity of a rule, `off` if it is not applied."""
        chosen: Level | None = getattr(self.rules, rule).severity
        return chosen or RULES[rule].severity

    def active(self) -> frozenset[str]:
        """Return the ids of the rules that are applied."""
        return frozenset(rule for rule in RULES if self.severity(rule) != "off")


def load(path: Path) -> Settings:
    """Read a rules file. Raises SpecError, which names the key, if it is not valid."""
    tables: dict[str, Any] = toml.tables(toml.read(path), str(path))
    return validated(Settings, tables, where=str(path))
