"""Packaged mixtures have the weights of their projects, and shares are those of the projects' loaders.

`UPDATE_GOLDEN=1 pytest tests/schemas/mixture/test_spec.py` rewrites the table of docs/mixtures.md.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.declarations import catalog
from schemas.errors import SpecError, ViewError
from schemas.mixture.shares import shares
from schemas.mixture.spec import (
    HERE,
    Caps,
    Convention,
    Holdout,
    MixtureSource,
    MixtureSpec,
    Normalize,
    load,
    mixture,
    mixture_names,
)
from schemas.views.views import view, view_names

ROOT = Path(__file__).resolve().parents[3]
FACTS: dict[str, Any] = json.loads((ROOT / "tests/data/oxe_mixtures.json").read_text())
UPSTREAM: dict[str, Any] = FACTS["mixtures"]
STEPS: dict[str, int] = FACTS["steps"]
PAGE = ROOT / "docs/mixtures.md"
TOY = """
name = "toy"
weighting = "relative"

[weights]
one = 1.0
two = 0.5
"""


def toy(text: str = TOY, **changes: str) -> MixtureSpec:
    for old, new in changes.items():
        text = text.replace(old, new)
    return load(text, where="toy.toml")


def shares_of(spec: MixtureSpec, steps: dict[str, int]) -> dict[str, float]:
    return {source: part.share for source, part in shares(spec, steps).sources.items()}


def test_all_43_mixtures_are_shipped_under_their_names() -> None:
    assert list(mixture_names()) == sorted(UPSTREAM)
    assert len(UPSTREAM) == 43
    assert all(mixture(name).name == name for name in mixture_names())
    assert all(mixture(name).citation for name in mixture_names())


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_weights_are_upstreams_in_its_order_and_the_first_of_two_counts(name: str) -> None:
    first: dict[str, float] = {}
    for dataset, weight in UPSTREAM[name]["weights"]:
        first.setdefault(dataset, weight)
    assert list(mixture(name).weights.values()) == list(first.values())


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_datasets_are_those_upstream_names(name: str) -> None:
    """A name is the project's, or the project's name is in the comment after it or a prefix of it."""
    lines = (HERE / f"{name}.toml").read_text().splitlines()
    for dataset, theirs in zip(mixture(name).weights, dict(UPSTREAM[name]["weights"]), strict=True):
        (line,) = (line for line in lines if re.match(rf"{dataset} += [\d.]", line))
        assert line.partition("#")[2].strip() in {"", theirs}
        assert "#" in line or dataset == theirs


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_every_dataset_of_a_mixture_is_declared_and_gives_its_view_or_is_excluded_with_a_reason(name: str) -> None:
    spec = mixture(name)
    names = {source: spec.dataset_of(source) for source in spec.weights}
    assert {source for source in names if names[source] not in catalog.dataset_names()} == {
        source for source, why in spec.excluded.items() if why == "not declared"
    }
    for source in names.keys() - spec.excluded.keys() if spec.view else ():
        assert spec.view in view_names(catalog.dataset(names[source]))


@pytest.mark.parametrize("name", [name for name in UPSTREAM if "balanced" in UPSTREAM[name]])
def test_relative_shares_are_those_of_the_loaders_that_balance(name: str) -> None:
    assert shares_of(mixture(name), STEPS) == pytest.approx(UPSTREAM[name]["balanced"], rel=1e-12)


@pytest.mark.parametrize("name", [name for name in UPSTREAM if "unbalanced" in UPSTREAM[name]])
def test_without_balancing_a_weight_is_a_share(name: str) -> None:
    spec = mixture(name).model_copy(update={"weighting": "share"})
    assert shares_of(spec, dict.fromkeys(spec.weights, 7)) == pytest.approx(UPSTREAM[name]["unbalanced"], rel=1e-12)


@pytest.mark.parametrize("name", [name for name in UPSTREAM if "probabilities" in UPSTREAM[name]])
def test_weights_that_hold_the_size_already_are_only_normalized(name: str) -> None:
    spec = mixture(name).model_copy(update={"excluded": {}})
    ours = list(shares_of(spec, dict.fromkeys(spec.weights, 7)).values())
    assert ours == pytest.approx(list(UPSTREAM[name]["probabilities"].values()), rel=1e-12)


def test_the_25_sets_of_openvla_7b_have_openvlas_shares_and_epoch() -> None:
    spec = mixture("oxe_magic_soup_plus_minus")
    ours = shares(spec, STEPS)
    weights = np.array(list(spec.weights.values()))
    sizes = np.array([STEPS[source] for source in spec.weights])
    expected = weights * sizes / (weights * sizes).sum()
    epoch = (sizes / expected)[weights == 1].max()  # OpenVLA: until each dataset of weight 1.0 is seen once
    assert len(spec.weights) == 25
    assert np.allclose([part.share for part in ours.sources.values()], expected, rtol=1e-12, atol=0)
    assert abs(ours.epoch - epoch) <= 1
    assert [part.repeats for part in ours.sources.values()] == list(weights)


def test_the_shares_printed_in_the_openvla_paper_are_reproduced() -> None:
    printed = FACTS["openvla_paper_percent"]
    steps = {**STEPS, "language_table": 7_045_476, "droid": 27_044_326}
    ours = shares_of(mixture("openvla/oxe_magic_soup_plus"), steps)
    whole = sum(printed.values())  # not 100
    assert ours == pytest.approx({source: percent / whole for source, percent in printed.items()}, abs=0.0015)
    # openvla-7b's mixture lacks two of them and gives fractal weight 1.0; the others keep their proportions
    minus = shares_of(mixture("openvla/oxe_magic_soup_plus_minus"), STEPS)
    del minus["fractal20220817_data"]
    scale = sum(minus.values()) / sum(printed[source] for source in minus)
    assert minus == pytest.approx({source: scale * printed[source] for source in minus}, abs=0.002)


def test_the_shares_that_octos_loader_printed_are_reproduced() -> None:
    spec = mixture("octo/rtx").model_copy(update={"weighting": "share"})
    assert shares_of(spec, dict.fromkeys(spec.weights, 7)) == pytest.approx(FACTS["octo_notebook_rtx"], abs=1e-6)


def test_a_group_of_scenes_is_a_source_of_its_dataset() -> None:
    for name in ("FULL_BRIDGE_WEIGHTS", "COMPRESSED_BRIDGE_WEIGHTS"):
        spec = mixture(name)
        groups = {scene: source for source, part in spec.sources.items() for scene in part.scenes}
        assert groups == {scene: f"domain_{n}" for scene, n in UPSTREAM[f"remix_bridge/{name}"]["scenes"].items()}
        assert {spec.dataset_of(source) for source in spec.weights} == {"bridge_dataset"}


SIZES = st.integers(1, 10**9)
WEIGHTS = st.floats(1e-6, 1e6)


@given(
    sources=st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(WEIGHTS, SIZES), min_size=1),
    weighting=st.sampled_from(["relative", "share"]),
)
def test_shares_sum_to_one_repeat_as_declared_and_do_not_depend_on_the_order(
    sources: dict[str, tuple[float, int]], weighting: Literal["relative", "share"]
) -> None:
    spec = MixtureSpec(name="m", weighting=weighting, weights={name: weight for name, (weight, _) in sources.items()})
    steps = {name: size for name, (_, size) in sources.items()}
    result = shares(spec, steps)
    assert sum(part.share for part in result.sources.values()) == pytest.approx(1)
    drawn = sum(part.repeats * part.steps for part in result.sources.values())
    assert drawn == pytest.approx(result.epoch, abs=1, rel=1e-9)
    if weighting == "relative":
        assert {name: part.repeats for name, part in result.sources.items()} == spec.weights
    turned = spec.model_copy(update={"weights": dict(reversed(spec.weights.items()))})
    assert shares(turned, steps) == result


def test_sources_that_cannot_take_part_are_an_error_that_names_all_of_them() -> None:
    with pytest.raises(SpecError) as error:
        shares(toy(TOY.replace("one", "demo_kitchn") + "three = 1.0\nfour = 1.0\nfive = 2.0"), {"four": 0, "five": 1})
    assert str(error.value) == (
        "toy: 4 of 5 sources are not available: demo_kitchn (unknown dataset, did you mean 'demo_kitchen'?); "
        "two (unknown dataset); three (unknown dataset); four (it has no steps); "
        'to train without them, list them under [excluded] or set missing = "skip"'
    )


def test_a_dataset_that_cannot_give_the_view_says_why() -> None:
    with pytest.raises(SpecError) as error:
        shares(toy(weighting='view = "x"\nweighting', two="bridge_dataset"), {"one": 5, "bridge_dataset": 5})
    assert "one (unknown dataset)" in str(error.value)
    with pytest.raises(ViewError) as why:
        view(catalog.dataset("bridge_dataset"), "x")
    assert f"; bridge_dataset ({why.value})" in str(error.value)


def test_a_dataset_may_be_named_by_its_alias() -> None:
    spec = toy(weighting='view = "openvla"\nweighting', one="fmb", two="bridge_dataset")
    assert set(shares(spec, {"fmb": 5, "bridge_dataset": 5}).sources) == {"fmb", "bridge_dataset"}
    with pytest.raises(SpecError, match="fmb \\(its number of steps is unknown"):
        shares(spec, {"bridge_dataset": 5})


def test_a_declared_dataset_without_steps_says_so() -> None:
    with pytest.raises(
        SpecError, match=r"1 of 2 sources are not available: bridge_dataset \(its number of steps is unknown\)"
    ):
        shares(toy(two="bridge_dataset"), {"one": 5})


def test_missing_skip_leaves_out_with_the_reason_and_keeps_the_other_weights() -> None:
    spec = toy(weighting='missing = "skip"\nweighting', two="two = 0.5\nthree")
    result = shares(spec, {"one": 10, "three": 20})
    assert result.left_out == {"two": "unknown dataset"}
    assert {name: part.share for name, part in result.sources.items()} == {"one": 0.5, "three": 0.5}


def test_an_excluded_source_is_left_out_even_where_there_are_steps() -> None:
    result = shares(toy(TOY + '[excluded]\ntwo = "wrong grippers"'), {"one": 10, "two": 20})
    assert result.left_out == {"two": "wrong grippers"}
    assert list(result.sources) == ["one"]
    assert result.epoch == 10


def test_a_mixture_of_which_nothing_remains_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"^toy: none of the sources are available: one \(unknown dataset\); two"):
        shares(toy(weighting='missing = "skip"\nweighting'), {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "two = 0.5",
            "one = 0.5",
            "is not TOML (Cannot overwrite a value (at line 7, column 10)); keys that occur twice: one",
        ),
        ("0.5", "0", "weights.two: must be a number above 0; to leave the dataset out, list it under [excluded]"),
        ("0.5", "-1", "weights.two: must be a number above 0; to leave the dataset out, list it under [excluded]"),
        ("0.5", "nan", "weights.two: must be a number above 0; to leave the dataset out, list it under [excluded]"),
        ("0.5", "inf", "weights.two: must be a number above 0; to leave the dataset out, list it under [excluded]"),
        ("0.5", "true", "weights.two: Input should be a valid number"),
        ("one = 1.0\ntwo = 0.5", "", "weights: the mixture is empty; name at least one dataset that is not excluded"),
        ("0.5", "1\n[excluded]\none = 'a'\ntwo = 'b'", "weights: the mixture is empty; name at least one"),
        ("0.5", "1\n[excluded]\ntow = 'a'", "excluded.tow: has no weight; did you mean 'two'? (known: one, two)"),
        ("0.5", "1\n[sources]\ntow = {dataset = 'a', scenes = ['b']}", "sources.tow: has no weight; did you mean"),
        (
            "0.5",
            "1\n[sources]\ntwo = {dataset = 'one', scenes = ['b']}",
            "weights.one: is included both whole and by scenes",
        ),
        ("0.5", "1\n[sources]\ntwo = {dataset = 'a', scenes = []}", "sources.two.scenes: Tuple should have at least 1"),
        ("0.5", "1\n[sources]\ntwo = {dataset = 'a', scenes = ['b', 'b']}", "sources: scene 'b' of a is in 2 sources"),
        ('"relative"', '"relativ"', "weighting: Input should be 'relative', 'share' or 'temperature'"),
        ('"toy"', '"../toy"', "name: String should match pattern"),
        ("weighting", "wieghting", "unknown key 'wieghting'; did you mean 'weighting'?"),
    ],
)
def test_a_wrong_mixture_is_named_with_its_key(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        toy(TOY.replace(old, new))
    assert str(error.value).startswith(f"toy.toml: {message}")


def test_a_file_is_loaded_and_a_name_may_be_short(tmp_path: Path) -> None:
    (tmp_path / "mix.toml").write_text(TOY)
    assert mixture(str(tmp_path / "mix.toml")) == toy()
    assert mixture("libero_4_task_suites_no_noops") == mixture("openvla_oft/libero_4_task_suites_no_noops")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("bridge", "2 mixtures are named 'bridge'; use octo/bridge or openvla/bridge"),
        (
            "openvla/oxe_magic_sup",
            "unknown mixture 'openvla/oxe_magic_sup'; did you mean 'openvla/oxe_magic_soup'? (known",
        ),
        ("../datasets/bridge_dataset", "unknown mixture '../datasets/bridge_dataset'"),
        ("nowhere/mix.toml", "nowhere/mix.toml: no such file"),
    ],
)
def test_a_mixture_that_is_not_found_says_what_to_do(target: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        mixture(target)
    assert str(error.value).startswith(message)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mix.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"mix.toml: cannot be read \(.*codec"):
        mixture(str(tmp_path / "mix.toml"))


def test_the_page_names_every_key_and_word() -> None:
    text = PAGE.read_text()
    words = [word for key in ("weighting", "missing") for word in get_args(MixtureSpec.model_fields[key].annotation)]
    words += [*get_args(Convention), *get_args(Normalize.model_fields["method"].annotation)]
    for word in (*MixtureSpec.model_fields, *words):
        assert f"`{word}`" in text
    for model in (MixtureSource, Caps, Holdout, Normalize):
        assert all(f"{key} = " in text for key in model.model_fields)


def test_the_examples_on_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text()
    example, paraphrases = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert set(shares(load(example, where="page"), STEPS).left_out) == {"taco_play"}
    assert load(example + paraphrases, where="page").paraphrases.keys() == {"close the pot"}
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(code, {})  # noqa: S102 - the example in the docs
    assert capsys.readouterr().out.split() == re.findall(r"# (.*)$", code, re.MULTILINE)


def test_the_table_on_the_page_is_current() -> None:
    text = PAGE.read_text()
    head = text[: text.index("|---|---|---|\n", text.index("## Shipped mixtures")) + len("|---|---|---|\n")]
    specs = [mixture(name) for name in mixture_names()]
    rows = [f"| `{s.name}` | {len(s.weights)} | {s.citation} |\n" for s in specs]
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(head + "".join(rows))
    assert PAGE.read_text() == head + "".join(rows), "to renew it: UPDATE_GOLDEN=1 pytest tests/schemas/mixture"
