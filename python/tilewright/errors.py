"""Errors: one class for each kind of fault, all of them :class:`Error`, with a message of three parts."""

from __future__ import annotations


class Error(RuntimeError):
    """What every function of tilewright raises.

    ``code`` is the kind ("invalid_argument", "unsupported", ...); ``problem`` says what is wrong with the value seen,
    ``allowed`` what would be right, ``remedy`` what to do. ``str(error)`` is "problem; allowed; remedy".
    """

    def __init__(self, code: str, problem: str, allowed: str, remedy: str) -> None:
        super().__init__(f"{problem}; {allowed}; {remedy}")
        self.code = code
        self.problem = problem
        self.allowed = allowed
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Error], tuple[str, str, str, str]]:
        return type(self), (self.code, self.problem, self.allowed, self.remedy)


class InvalidArgument(Error, ValueError):
    """A value is outside what the documentation allows."""


class Unsupported(Error, NotImplementedError):
    """Correct, but no kernel, schedule or tool here can do it."""


def make_error(code: str, problem: str, allowed: str, remedy: str) -> Error:
    """The error of this code, as its own class where it has one."""
    classes: dict[str, type[Error]] = {"invalid_argument": InvalidArgument, "unsupported": Unsupported}
    return classes.get(code, Error)(code, problem, allowed, remedy)


def invalid(problem: str, allowed: str, remedy: str) -> InvalidArgument:
    """An InvalidArgument to raise."""
    return InvalidArgument("invalid_argument", problem, allowed, remedy)
