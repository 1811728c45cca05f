"""Solutions of chapter 13b, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from typing import Any

from exercises.ch13b import check_order, check_upload
from mini_docker.lab import Exercise

Needs = dict[str, list[str]]


def order_blank(top: str, needs: Needs) -> list[str]:
    """The untouched exercise."""
    return [top, *needs.get(top, [])]


def order(top: str, needs: Needs) -> list[str]:
    """Return `top` and all that it leads to, in the order of sending."""
    found: dict[str, None] = {}
    for needed in needs.get(top, []):
        found.update(dict.fromkeys(order(needed, needs)))
    found[top] = None
    return list(found)


def order_from_the_top(top: str, needs: Needs) -> list[str]:
    """Wrong: the name first."""
    return order(top, needs)[::-1]


def order_twice(top: str, needs: Needs) -> list[str]:
    """Wrong: what two need is sent twice."""
    return [*(one for needed in needs.get(top, []) for one in order_twice(needed, needs)), top]


def upload_blank(session: Any, data: bytes, chunk: int) -> None:
    """The untouched exercise."""
    for start in range(0, len(data), chunk):
        session.patch(start, data[start : start + chunk])


def upload(session: Any, data: bytes, chunk: int) -> None:
    """Send all of `data`, whatever breaks."""
    start = 0
    while start < len(data):
        try:
            session.patch(start, data[start : start + chunk])
            start = min(start + chunk, len(data))
        except ConnectionError:
            start = session.count()


def upload_again(session: Any, data: bytes, chunk: int) -> None:
    """Wrong: a piece that broke is sent again from its start."""
    for start in range(0, len(data), chunk):
        while True:
            try:
                session.patch(start, data[start : start + chunk])
                break
            except ConnectionError:
                pass


def upload_at_once(session: Any, data: bytes, chunk: int) -> None:
    """Wrong: everything in one piece."""
    upload(session, data, len(data))


EXERCISES = [
    Exercise(
        "order",
        check_order,
        blank=order_blank,
        solution=order,
        wrong=[(order_from_the_top, "which it needs"), (order_twice, "share a layer")],
    ),
    Exercise(
        "upload",
        check_upload,
        blank=upload_blank,
        solution=upload,
        wrong=[
            (upload_blank, "you gave up"),
            (upload_again, "a piece was sent for"),
            (upload_at_once, "larger than `chunk`"),
        ],
    ),
]
