import ast
import inspect

import pytest

import oxe_tools
from schemas import errors


def test_the_public_names_are_these() -> None:
    assert oxe_tools.__all__ == [
        "Dataset",
        "Dim",
        "Episode",
        "NormStats",
        "OxeError",
        "Space",
        "Statistics",
        "load_norm_stats",
        "mixture_loader",
        "open_dataset",
        "standardize",
        "stats",
        "torch_dataset",
        "torch_loader",
    ]
    assert oxe_tools.__all__ == sorted(oxe_tools.__all__, key=lambda name: (name[0].islower(), name))


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in oxe_tools.__all__:
        assert inspect.getdoc(getattr(oxe_tools, name)), name


def test_type_checkers_see_the_names_where_they_are_imported_from() -> None:
    blocks = [node for node in ast.parse(inspect.getsource(oxe_tools)).body if isinstance(node, ast.If)]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    assert {
        name.asname or name.name: f"{node.module}:{name.name}" for node in imports for name in node.names
    } == oxe_tools.PLACES


def test_dir_lists_the_public_names_and_no_other_name_is_known() -> None:
    assert set(oxe_tools.__all__) <= set(dir(oxe_tools))
    with pytest.raises(AttributeError, match="module 'oxe_tools' has no attribute 'open_datasets'"):
        _ = oxe_tools.open_datasets  # type: ignore[attr-defined]


def test_public_methods_have_docstrings() -> None:
    for cls in (oxe_tools.Dataset, oxe_tools.Episode, oxe_tools.NormStats, oxe_tools.Space, oxe_tools.Statistics):
        for name, member in inspect.getmembers(cls, inspect.isfunction):
            assert name.startswith("_") or inspect.getdoc(member), f"{cls.__name__}.{name}"


def test_every_error_of_ours_is_an_oxe_error() -> None:
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        assert cls.__module__ != errors.__name__ or issubclass(cls, oxe_tools.OxeError), name
