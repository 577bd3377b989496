"""What a process can be given as a variable of its environment: one rule for the operator, which sends them with a
claim, and for the agent, which takes them. A value may be a user's secret: no text here has one in it. Pure. Must not
import anything of the project.
"""

# Linux's MAX_ARG_STRLEN: a variable's name, "=", value and final NUL.
STRING_BYTES = 128 << 10
_AROUND = len("=") + len("\0")


def is_name(name: str) -> bool:
    """Whether a variable can have this name."""
    return bool(name) and "=" not in name and "\0" not in name


def problem_of(value: str) -> str:
    """Why no variable can have this value, as it follows the variable's name in a sentence; "" where one can."""
    if "\0" in value:
        return "holds a NUL character, which no process can be given"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair: send what UTF-8 can hold"
    return ""


def string_bytes(name: str, value: str) -> int:
    """Of the string that a process gets; of texts that UTF-8 can hold."""
    return len(name.encode()) + len(value.encode()) + _AROUND
