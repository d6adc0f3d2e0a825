"""The thresholds of every rule, with their defaults. A rules file may change them, and the severity of a rule."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from schemas.declarations.tables import Model

Level: TypeAlias = Literal["error", "warning", "info", "off"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RuleSettings(Model):
    """The settings of a rule. Each field besides `severity` is a threshold."""

    severity: Level | None = None  # None: that of the rule


# Numbers


class NoopFirst(RuleSettings):
    """A first step is a no-op if no dimension of a delta command is larger."""

    motion: Positive = 1e-4  # metres, radians


# Images


# Duplicates


class NearDuplicate(RuleSettings):
    """Two episodes are almost equal if the paths of their states are, also if one is a little shorter."""

    distance: Positive = 0.01  # mean distance of the two paths, as a share of the usual range of each dimension
    length: Share = 0.1  # largest difference of their lengths


# Language


class LanguageTemplate(RuleSettings):
    """An instruction is a placeholder, or one of several tasks has nearly all episodes."""

    share: Share = 0.9


# All


class Thresholds(Model):
    """The settings of every rule, by its id."""

    non_finite: RuleSettings = RuleSettings()
    duplicate: RuleSettings = RuleSettings()
    split_leak: RuleSettings = RuleSettings()
    near_duplicate: NearDuplicate = NearDuplicate()
    noop_first: NoopFirst = NoopFirst()
    copied_field: RuleSettings = RuleSettings()
    constant_dim: RuleSettings = RuleSettings()
    stale_stats: RuleSettings = RuleSettings()
    outcome_unknown: RuleSettings = RuleSettings()
    language_missing: RuleSettings = RuleSettings()
    language_template: LanguageTemplate = LanguageTemplate()
