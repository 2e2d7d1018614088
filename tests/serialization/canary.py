"""A canary. Payloads find it by its name: what is pickled by value would sing where nobody listens."""

from __future__ import annotations

SUNG = []


def sing(trace):
    SUNG.append(trace)


class Singer:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return sing, ("sang",)
