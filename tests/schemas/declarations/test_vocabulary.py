from schemas.declarations.vocabulary import ARRAY_OPS, DECODERS, STEP_OPS, VERSIONS


def test_a_word_is_the_name_of_its_function_and_means_one_thing() -> None:
    tables = (ARRAY_OPS, STEP_OPS, DECODERS)
    for table in tables:
        assert all(function.__name__ == word for word, function in table.items())
    words = [word for table in tables for word in table]
    assert len(words) == len(set(words))


def test_what_a_word_stands_for_is_ours() -> None:
    for table in (ARRAY_OPS, STEP_OPS, DECODERS):
        assert {function.__module__.split(".")[0] for function in table.values()} == {"schemas"}


def test_every_word_that_is_shipped_has_a_version() -> None:
    words = [word for table in (ARRAY_OPS, STEP_OPS, DECODERS) for word in table]
    assert list(VERSIONS) == words
    assert all(version >= 1 for version in VERSIONS.values())
