"""Runs a case of `h2_cases` on a connection of its own and says what is wrong with the reaction."""

from .h2_cases import Connection, Forgotten, Refused, Stream
from .h2raw import GOAWAY, H2, RST_STREAM, Closed, Response, code_name

# Seconds for a reaction that has to come.
PATIENCE = 4


def judge(edge, domain, case):
    """None, or what happened instead of what was expected."""
    with H2(edge, domain, settings=case.settings, begin=case.begin, timeout=PATIENCE) as h2:
        if h2.protocol != "h2":
            return f"ALPN chose {h2.protocol}"
        try:
            if case.begin:
                h2.ready()
            number = case.act(h2)
        except (Closed, TimeoutError, AssertionError) as problem:
            # A connection error may come while the case still sends.
            if isinstance(problem, AssertionError) or not isinstance(case.expected, Connection):
                return f"{type(problem).__name__}: {problem}"
            number = 1
        if isinstance(case.expected, str):
            return judge_served(h2, number, case.expected)
        return judge_refused(h2, number, case.expected)


def judge_served(h2, number, expected):
    try:
        response = h2.response(number)
    except (Closed, TimeoutError) as problem:
        if "connection(" in expected and h2.goaway is not None and code_name(h2.goaway) in expected:
            return None
        return f"not served: {problem or h2.frames[-3:]}; {h2.frames[-3:]}"
    if response.reset is not None and response.fields is None and "stream(" in expected and code_name(response.reset) in expected:
        return None
    if expected.isdigit():
        return None if response.status == int(expected) else f"status {response.status}, not {expected}"
    if response.status != 200 or not response.ended or h2.goaway not in (None, 0):
        return f"not served: {response}, {h2.frames[-3:]}"
    return None


def judge_refused(h2, number, expected):
    """The reaction, and after a connection error that the connection does end."""
    allowed = set(expected.codes)
    names = "/".join(code_name(code) for code in expected.codes)

    def reaction():
        if isinstance(expected, Forgotten) and later and h2.responses.get(later) and h2.responses[later].ended:
            return h2.responses[later]
        for one in h2.frames:
            if one.kind == GOAWAY and one.code != 0:
                return one
            if isinstance(expected, Stream) and one.kind == RST_STREAM and one.stream == number:
                return one
            if isinstance(expected, Refused) and one.fields is not None and one.stream == number:
                return one
        return None

    later = None
    if isinstance(expected, Forgotten):
        h2.next_stream = later = number + 2
        h2.request()
    try:
        h2.until(lambda: reaction() is not None, f"{type(expected).__name__}({names})")
    except Closed:
        return None
    except TimeoutError as problem:
        return f"no reaction: {problem}"
    one = reaction()
    if isinstance(one, Response):
        return None if one.status == 200 else f"the next request: {one}"
    if one.fields is not None:
        status = dict(one.fields).get(":status", "")
        return None if status.startswith("4") else f"status {status}, not {names} or a 4xx"
    if one.code not in allowed:
        return f"{one}, not {names}"
    if one.kind == GOAWAY and not h2.ends(PATIENCE):
        return f"{one}, but the connection stays open"
    return None
