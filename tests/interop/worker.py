"""The other side of a pipe: answers one JSON line for each, in another Python than the tests'.

request   {"call": "name of a function", "args": {...}}
answer    {"result": ...} or {"error": "traceback"}
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def serve(*functions: Callable[..., Any]) -> None:
    """Answer requests until stdin ends; whatever is printed meanwhile goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    table = {function.__name__: function for function in functions}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": table[request["call"]](**request["args"])}
        except BaseException:  # the converters end by sys.exit
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
