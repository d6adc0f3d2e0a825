import inspect

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


def test_public_methods_have_docstrings() -> None:
    for cls in (oxe_tools.Dataset, oxe_tools.Episode, oxe_tools.NormStats, oxe_tools.Space, oxe_tools.Statistics):
        for name, member in inspect.getmembers(cls, inspect.isfunction):
            assert name.startswith("_") or inspect.getdoc(member), f"{cls.__name__}.{name}"


def test_every_error_of_ours_is_an_oxe_error() -> None:
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        assert cls.__module__ != errors.__name__ or issubclass(cls, oxe_tools.OxeError), name
