"""The name of the trial that runs, on every record that is logged meanwhile."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: ContextVar[str] = ContextVar("trial_name", default="")


def trial_name() -> str:
    """The name of the trial that runs here, or an empty string."""
    return _NAME.get()


@contextmanager
def trial_named(name: str) -> Iterator[None]:
    """Name the trial in the block.

    Records of `logging` made in it have an attribute `trial`, and where nobody has set up logging
    in this process, warnings are printed with the name in front.
    """
    token = _NAME.set(name)
    factory = logging.getLogRecordFactory()
    plain = logging.lastResort

    def named(*arguments: object, **more: object) -> logging.LogRecord:
        record = factory(*arguments, **more)
        record.trial = trial_name()
        return record

    logging.setLogRecordFactory(named)
    logging.lastResort = _last_resort()  # a trial may change its own
    try:
        yield
    finally:
        logging.lastResort = plain
        logging.setLogRecordFactory(factory)
        _NAME.reset(token)


def _last_resort() -> logging.Handler:
    handler = logging._StderrHandler(logging.WARNING)  # type: ignore[attr-defined]  # what `lastResort` is
    handler.setFormatter(logging.Formatter("[%(trial)s] %(name)s: %(message)s"))
    return handler  # type: ignore[no-any-return]
