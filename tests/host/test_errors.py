"""The tree in the module's docstring is the tree, and every class survives the wire."""

import re

import pytest

from sa2va_host import errors
from sa2va_host.protocol import wire
from sa2va_host.protocol.wire import to_error

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "from_wire"]


def test_the_docstring_draws_the_whole_tree():
    drawn = re.findall(
        r"^[ │├└─]*([A-Z]\w+)", errors.__doc__.split("::")[1].split("`Sa2VAError`")[0], re.MULTILINE
    )
    assert set(drawn) == {kind.__name__ for kind in CLASSES}


def test_codes_are_unique():
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_wire(kind):
    sent = wire.Failed(
        call=1, code=kind.code, message="m", advice="a", log_tail=["l"], retry_after=2.0, holders=["h"]
    )
    error = to_error(sent)
    assert type(error) is kind
    assert (error.message, error.advice, error.log_tail) == ("m", "a", ("l",))
    assert str(error) == "m a"
    assert getattr(error, "retry_after", 2.0) == 2.0
    assert getattr(error, "holders", ("h",)) == ("h",)


def test_an_unknown_code_is_a_worker_error():
    error = to_error(wire.Failed(call=1, code="from_the_future", message="m"))
    assert type(error) is errors.WorkerError
    assert "from_the_future" in str(error)
