"""`http_failures` with agents of one target each, which relay bytes. 35 s."""

from suites import http_failures


class SUITE(http_failures.SUITE):
    relays = True
    # Takes a minute, and the gateway's side of it is the same.
    an_agent_killed_in_mid_response = None
