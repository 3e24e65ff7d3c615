"""How the HTTP suites name settings, flags and commands of the program. Whoever renames one changes it here only."""

# The words of the tests and the keys of `[limits]`. Times are seconds, sizes bytes, rates bytes a second.
LIMITS = {
    "header": "header-timeout",
    "body_idle": "body-idle-timeout",
    "connect": "connect-timeout",
    "response_head": "response-timeout",
    "keep_alive_idle": "keep-alive-timeout",
    "linger": "linger-timeout",
    "upgraded_idle": "upgraded-idle-timeout",
    "pool_idle": "pool-idle-timeout",
    "body_rate_grace": "body-rate-grace",
    "minimum_body_rate": "minimum-body-rate",
    "header_field_size": "header-field-size",
    "header_list_size": "header-list-size",
    "header_field_count": "header-field-count",
    "request_line_size": "request-line-size",
    "requests_per_connection": "requests-per-connection",
    "streams_per_connection": "streams-per-connection",
    "requests_in_flight_per_client": "requests-in-flight-per-client",
    "connections": "connections",
    "connections_per_client": "connections-per-client",
}
TIMES = {"header", "body_idle", "connect", "response_head", "keep_alive_idle", "linger", "upgraded_idle", "pool_idle", "body_rate_grace"}
TRUSTED_PROXIES = "trusted-proxies"
PROTOCOL = "protocol"
ACCESS_LOG = "--access-log"


def seconds(value):
    """A time as the file writes it."""
    return f'"{value}s"'


def limits_table(limits):
    if not limits:
        return ""
    lines = [f"{LIMITS[name]} = {seconds(value) if name in TIMES else value}" for name, value in limits.items()]
    return "[limits]\n" + "\n".join(lines) + "\n"


def route_add(state, domain, agent):
    return ["route", "add", f"{domain}={agent}", "--state", state]


def route_remove(state, domain):
    return ["route", "remove", domain, "--state", state]


def route_list(state):
    return ["route", "list", "--state", state]
