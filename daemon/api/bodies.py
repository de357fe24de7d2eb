"""Reading a request's JSON without trusting it.

The rule it protects: no body can make the daemon fail. It is bounded before it is parsed; NaN,
numbers of thousands of digits, nesting that exhausts the stack and halves of characters are refused
with a sentence.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from daemon import defaults
from daemon.errors import TooLargeError, UsageError

# A finite double has at most 17 significant digits, and no integer of ours has more than 19.
_MOST_DIGITS = 400


async def read_json(request: Request, limit: int = defaults.MAX_JSON_BODY) -> Any:
    """Return the request's body, parsed; None if it is empty.

    Raises:
        TooLargeError: it has more than ``limit`` bytes.
        UsageError: it is not JSON.
    """
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise TooLargeError(
                    f"the request has more than {limit} bytes",
                    remedy="a long text travels as a file: see --prompts",
                )
    except ClientDisconnect:
        raise UsageError("the connection ended before the request did") from None
    return parse_json(bytes(body)) if body else None


async def read_object(request: Request) -> dict[str, Any]:
    """Return the request's body, a JSON object; an absent one is empty.

    Raises:
        UsageError: it is something else.
    """
    body = await read_json(request)
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise UsageError(f"the request must be a JSON object, not {type(body).__name__}")
    return body


def parse_json(body: bytes) -> Any:
    """Parse JSON as RFC 8259 has it.

    Raises:
        UsageError: says what is wrong.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_finite
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise UsageError("the request's JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise UsageError("the request holds half a character (an unpaired surrogate)") from None
    except ValueError as error:
        raise UsageError(f"the request is not JSON: {str(error)[:200]}") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is larger than any double")
    return value
