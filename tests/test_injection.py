"""What a user types reaches neither Python's evaluation nor the SQL of the tracking store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution.support import store, train, zoo_spec
from weightzoo.errors import NotFoundError, QueryError
from weightzoo.query import parse
from weightzoo.records import FIELDS
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore

RECORD = {"test_accuracy": 0.5, "activation": "tanh", "zoo": "z", "seed_init": 1}
HARM = [
    "__import__('os').system('true')", "open('/etc/passwd')", "eval('1')", "().__class__.__bases__[0].__subclasses__()",
    "[x for x in (1, 2)]", "(lambda: 1)()", "f'{open(1)}'", "(x := 1)", "zoo.__class__", "zoo['a']", "*zoo", "await zoo",
    "yield", "'%s' % zoo", "2 ** 2 ** 9 ** 9", "1 if zoo else 2", "zoo @ zoo", "print", "...", "b'z'", "1j", "zoo == zoo()",
    "' OR '1'='1", "'; DROP TABLE runs; --", "z' UNION SELECT password FROM users --", "tags.`weightzoo.member` LIKE '%'",
    "attributes.status = 'FINISHED'", "\x00", "\\", "`", "/* */", "${PATH}", "{zoo}", "%(zoo)s",
]  # fmt: skip
WORDS = [
    *FIELDS,
    "and",
    "or",
    "not",
    "in",
    "is",
    "None",
    "==",
    "!=",
    "<",
    ">=",
    "(",
    ")",
    "[",
    "]",
    ",",
    "1",
    "'a'",
    "-",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from([*WORDS, *HARM]), max_size=12).map(" ".join), st.text(max_size=60), st.sampled_from(HARM)
)
FORBIDDEN = ("exec", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "marshal.", "pickle.")
_watched: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event.startswith(FORBIDDEN):
        _watched.append(f"{event} {arguments!r}")


sys.addaudithook(_note)  # which can't be taken away again, so it looks on only where asked


@contextlib.contextmanager
def nothing_is_run() -> Iterator[None]:
    global _watched
    _watched = []
    try:
        yield
        assert not _watched
    finally:
        _watched = None


def test_the_watch_notices_what_is_run() -> None:
    with pytest.raises(AssertionError), nothing_is_run():
        eval("1")


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
def test_a_query_is_never_evaluated(text: str) -> None:
    with contextlib.suppress(QueryError):
        parse("zoo == 'z'", FIELDS)  # what this imports, it imports here
    with nothing_is_run(), contextlib.suppress(QueryError):
        parse(text, FIELDS).matches(RECORD)


@pytest.mark.parametrize("text", HARM)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse(text, FIELDS)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("injection")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    train(folder, zoo_spec("seed", epochs=1))
    return folder


def watched(opened: RunStore | Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The conditions that MLflow is asked with."""
    asked: list[str] = []
    search: Callable[..., Any] = opened.client.search_runs

    def search_runs(experiment_ids: list[str], filter_string: str = "", *given: Any, **named: Any) -> Any:
        asked.append(filter_string)
        return search(experiment_ids, filter_string, *given, **named)

    monkeypatch.setattr(opened.client, "search_runs", search_runs)
    return asked


def test_runs_are_found_by_letters_and_digits_only(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store(database)
    asked = watched(opened, monkeypatch)
    (member, *_) = opened.zoo("z").known()
    assert opened.find(member).data.tags["weightzoo.member"] == member
    (condition,) = [one for one in asked if one]
    frame = condition.replace(member, "{}")
    for text in (*HARM, f"{member}' or '1' = '1", f"{member[:-1]}'", f"{member[:-1]}`", "*", "%"):
        with pytest.raises(NotFoundError):
            opened.find(text)
    assert {one for one in asked if one} == {condition}
    assert frame.count("'") == 4  # two texts: the member and the status


def test_a_query_is_not_handed_to_the_store(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database)
    registry = Registry(f"sqlite:///{database}/mlflow.db")
    asked = watched(registry, monkeypatch)
    assert len(registry.query("zoo == 'z' and activation != 'it is'' or 1=1'")) == 20
    assert len(registry.query("""zoo == "z' OR '1'='1" """)) == 0
    assert not any(asked)
    for text in HARM:
        with pytest.raises(QueryError):
            registry.query(text)
    assert not any(asked)
