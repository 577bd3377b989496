"""Lines that rewrite themselves by carriage returns, as progress bars do: their last state. Pure."""


def last_states(text: str) -> str:
    """`text`, which begins at a line's beginning, with each line in the state in which it was left.

    A carriage return takes back the line up to it as soon as more of the line follows; before a line's end it is a part
    of that end.
    """
    if "\r" not in text:
        return text
    return "\n".join(_last_state(line) if "\r" in line else line for line in text.split("\n"))


def newest_states(data: bytes) -> bytes:
    """A piece of a log without the states between the first and the last of each line that rewrites itself.

    The piece may begin within a line: what stands before the first carriage return stays.
    """
    if b"\r" not in data:
        return data
    return b"\n".join(_newest_state(line) if b"\r" in line else line for line in data.split(b"\n"))


def _last_state(line: str) -> str:
    body = line.rstrip("\r")
    return body[body.rfind("\r") + 1 :] + line[len(body) :]


def _newest_state(line: bytes) -> bytes:
    body = line.rstrip(b"\r")
    first, last = body.find(b"\r"), body.rfind(b"\r")
    return line if first == last else body[: first + 1] + body[last + 1 :] + line[len(body) :]
