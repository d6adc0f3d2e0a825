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


class Idle(RuleSettings):
    """The robot rests for a time."""

    seconds: Positive = 0.8  # least duration of a rest
    motion: Positive = 0.007  # motion in half a second, as a share of the usual range
    command: Positive = 0.02  # commanded change, as a share of the usual range of changes


class TimestampJitter(RuleSettings):
    """Robust standard deviation of the time between steps."""

    share: Positive = 0.1  # share of the median time


class TimestampGap(RuleSettings):
    """A time that is too long, or a motion that is too large for one step."""

    ratio: Positive = 1.5  # multiple of the episode's median time
    jump: Positive = 2.1  # multiple of the motion before and after


class Lag(RuleSettings):
    """Steps by which the state follows its command."""

    steps: Positive = 1.5  # least difference from the dataset's median
    seconds: Positive = 0.03  # the same in time
    fit: Share = 0.4  # least correlation
    gain: Share = 0.0015  # least gain in correlation over the dataset's median lag


class FrozenState(RuleSettings):
    """A dimension that keeps one value."""

    seconds: Positive = 0.45  # least duration
    motion: Positive = 0.03  # commanded or other motion meanwhile, as a share of the usual range


class Spike(RuleSettings):
    """A value that is far from both its neighbours."""

    size: Positive = 0.05  # least size, as a share of the usual range
    z: Positive = 8  # least size, in robust standard deviations of the second difference


class QuantileCollapse(RuleSettings):
    """The range from q01 to q99."""

    share: Positive = 1e-3  # share of the whole range


class Saturation(RuleSettings):
    """Steps whose command is the smallest or the largest one."""

    share: Share = 0.2


class RestOffset(RuleSettings):
    """Command minus state at rest."""

    radians: Positive = 0.087  # least offset of an angle: 5 degrees
    share: Positive = 0.05  # least offset of another dimension, as a share of its usual range


# Images


class BlackCamera(RuleSettings):
    """A frame is black if all its grey values from 0 to 255 are small and alike."""

    mean: Positive = 8
    std: Positive = 3


class FrozenCamera(RuleSettings):
    """One frame is shown again and again."""

    seconds: Positive = 0.3  # least duration
    motion: Positive = 0.03  # motion of the robot meanwhile, as a share of the usual range


class CameraLag(RuleSettings):
    """Steps by which the images follow the state."""

    steps: Positive = 2  # least difference from the dataset's median
    fit: Share = 0.5  # least correlation
    gain: Share = 0.1  # least gain in correlation over the dataset's median lag


class CameraSwap(RuleSettings):
    """Two cameras that look like each other."""

    ratio: Share = 0.8  # distance to the other camera's usual image, divided by that to its own


# Duplicates


class NearDuplicate(RuleSettings):
    """Two episodes are almost equal if the paths of their states and some of their images are."""

    distance: Positive = 0.01  # mean distance of the two paths, as a share of the usual range of each dimension
    length: Share = 0.1  # largest difference of their lengths
    look: Positive = 4  # mean number of bits of 64 by which the hashes of their images differ


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
    black_camera: BlackCamera = BlackCamera()
    frozen_camera: FrozenCamera = FrozenCamera()
    camera_lag: CameraLag = CameraLag()
    camera_swap: CameraSwap = CameraSwap()
    noop_first: NoopFirst = NoopFirst()
    idle: Idle = Idle()
    timestamp_jitter: TimestampJitter = TimestampJitter()
    timestamp_gap: TimestampGap = TimestampGap()
    lag: Lag = Lag()
    frozen_state: FrozenState = FrozenState()
    spike: Spike = Spike()
    quantile_collapse: QuantileCollapse = QuantileCollapse()
    saturation: Saturation = Saturation()
    rest_offset: RestOffset = RestOffset()
    convention: RuleSettings = RuleSettings()
    mixed_convention: RuleSettings = RuleSettings()
    copied_field: RuleSettings = RuleSettings()
    constant_dim: RuleSettings = RuleSettings()
    stale_stats: RuleSettings = RuleSettings()
    outcome_unknown: RuleSettings = RuleSettings()
    language_missing: RuleSettings = RuleSettings()
    language_template: LanguageTemplate = LanguageTemplate()
