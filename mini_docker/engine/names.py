# Exported from notebooks/14b_documents.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14b_documents.ipynb#names-module
"""Names of containers: which ones Docker allows, and one made up where none is given."""

from __future__ import annotations

import os

from mini_docker.engine.document import InvalidRequest

# %% notebooks/14b_documents.ipynb#name-words
ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
LONGEST_NAME = 250  # a name is also the name of a file
ADJECTIVES = (
    "bold brave bright calm clever curious eager fair gentle happy honest keen kind lively merry mild "
    "modest neat nimble patient quick quiet ready sharp steady sunny swift tidy warm wise witty zesty"
).split()
PEOPLE = (
    "allen backus bartik booch borg carmack cerf codd dijkstra easley engelbart hamilton hoare hopper "
    "joy kay kernighan knuth lamport liskov lovelace mccarthy moore naur perlman ritchie shannon "
    "stallman thompson torvalds turing wirth"
).split()


# %% notebooks/14b_documents.ipynb#names
def random_name(retry: int = 0) -> str:
    """Return a name such as "keen_hopper", with a number from the first retry on."""
    first, second, number = os.urandom(3)
    name = f"{ADJECTIVES[first % len(ADJECTIVES)]}_{PEOPLE[second % len(PEOPLE)]}"
    return f"{name}{number}" if retry else name


def valid_name(name: str) -> str:
    """Return `name` without a leading slash. Raises InvalidRequest in Docker's words."""
    bare = name.removeprefix("/")
    if not 2 <= len(bare) <= LONGEST_NAME or bare[0] in "_.-" or not ALLOWED.issuperset(bare):
        raise InvalidRequest(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare
