"""Every promise has its test, and every sentence that reads like a promise is known."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.repository.promises import NO_PROMISE, PROMISES

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "SECURITY.md", "docs/operations.md")
PROMISING = re.compile(r"\b(never|exactly|refuses?|refused|the same|nothing|at most)\b", re.I)
ROWS = [(document, words, *test) for document, rows in PROMISES.items() for words, test in rows.items()]


@cache
def names_of_tests(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def one_line(text):
    return " ".join(text.split())


@cache
def words_of(path):
    return one_line((ROOT / path).read_text(encoding="utf-8"))


def sentences_of_document(path):
    """Sentences, and rows of tables, outside of code."""
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.S)
    for block in re.split(r"\n\s*\n|\n(?=[-|#] ?)", text):
        if not block.startswith("    "):
            yield from re.split(r"(?<=[.:;])\s+", one_line(block))


def public_docstrings(path):
    """(name, docstring) of the module and of all that it shows."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield "", ast.get_docstring(tree) if path.name == "__init__.py" else None

    def within(node, before):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and child.name[0] != "_"
            ):
                yield before + child.name, ast.get_docstring(child)
                if isinstance(child, ast.ClassDef):
                    yield from within(child, f"{child.name}.")

    yield from within(tree, "")


def sentences_of_module(path):
    for name, text in public_docstrings(path):
        prose = re.split(r"\n(?:Examples|References)\n-", text or "")[0]
        for sentence in re.split(r"(?<=[.:;])\s+", one_line(prose)):
            yield f"{name}: {sentence}"


@pytest.mark.parametrize(("document", "promise", "path", "test"), ROWS)
def test_every_promise_still_stands_and_has_its_test(document, promise, path, test):
    assert one_line(promise) in words_of(document), "the sentence has changed: does its test still hold it?"
    assert test in names_of_tests(path)


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "looper").rglob("*.py"))]
)
def test_no_sentence_promises_what_is_not_in_the_table(document):
    sentences = (
        sentences_of_document(document) if document in DOCUMENTS else sentences_of_module(ROOT / document)
    )
    known = [one_line(words) for words in PROMISES.get(document, {})]
    for sentence in filter(PROMISING.search, sentences):
        if any(words in sentence for words in NO_PROMISE):
            continue
        assert any(words in sentence or sentence.partition(": ")[2] in words for words in known), (
            f"{document} promises something new: write its row in tests/repository/promises.py\n{sentence}"
        )


def test_what_is_said_to_be_no_promise_still_stands_somewhere():
    said = [s for document in DOCUMENTS for s in sentences_of_document(document)]
    said += [s for path in (ROOT / "looper").rglob("*.py") for s in sentences_of_module(path)]
    for words in NO_PROMISE:
        assert any(words in sentence for sentence in said), words
