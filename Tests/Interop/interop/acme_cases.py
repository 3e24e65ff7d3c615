"""What a CA may answer wrongly: for each case the kind of request, the answer, and what the gateway has to say of it."""

import json

from .acme_http import CUT, RESET, Answer, problem
from .acme_keys import Issuer, key_pem, new_key, split_chain

TEN_MEGABYTES = 10 << 20
DEEP = 120_000
ESCAPE = "\x1b[31mred\r\n2026 a line of its own"


# A whole number whose digits and exponent are each too much for a decimal of Foundation.
BEYOND_NUMBERS = b'{"type":"urn:ietf:params:acme:error:rejectedIdentifier","status":9007199254740993' + b"0" * 300 + b"e-300}"


def raw(body, status=200, **fields):
    """The same in place of the body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request, answer: Answer(status, data, {**answer.fields, **{name.replace("_", "-"): value for name, value in fields.items()}})


def members(**changed):
    return lambda request, answer: answer.with_json(**changed)


def action(what):
    return lambda request, answer: Answer(answer.status, answer.body, answer.fields, what)


def without_location(request, answer):
    return Answer(answer.status, answer.body, {name: value for name, value in answer.fields.items() if name != "Location"})


def location(text):
    return lambda request, answer: Answer(answer.status, answer.body, {**answer.fields, "Location": text})


def redirect(request, answer):
    """To itself, for ever."""
    return Answer(302, b"", {**answer.fields, "Location": request.path})


def token(text):
    def change(request, answer):
        return answer.with_json(challenges=[{**answer.json["challenges"][0], "token": text}])
    return change


def challenge(**changed):
    def change(request, answer):
        return answer.with_json(challenges=[{**answer.json["challenges"][0], **changed}])
    return change


def chain(make):
    """`make(issuer, names, key)` gives the PEM."""
    def change(request, answer):
        order = request.order
        return Answer(200, make(request.ca.issuer, order.names, order.key), answer.fields)
    return change


def good(issuer, names, key):
    return issuer.issue(names, key, 86_400 * 30)


def leaf(issuer, names, key):
    return good(issuer, names, key).partition(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"


def intermediate(issuer):
    return issuer.pem(issuer.intermediate)


def of_another_issuer(issuer, names, key):
    other = Issuer(issuer.name)
    return leaf(issuer, names, key) + intermediate(other)


# Each has a name of its own and is ordered beside the others.
ORDER = {
    "an order that is no JSON": ("newOrder", raw(b"<html>busy</html>", 201), "order: .*not JSON"),
    "an order that is a list": ("newOrder", raw([], 201), "order: .*(type|not JSON)"),
    "an empty order": ("newOrder", raw(b"", 201), "order: .*not JSON"),
    "an order of no UTF-8": ("newOrder", raw(b'{"status":"\xff\xfe"}', 201), "order: "),
    "an order without a place": ("newOrder", without_location, "order: .*Location"),
    "an order elsewhere": ("newOrder", location("http://192.0.2.1/order"), "order: .*https"),
    "an order at a file": ("newOrder", location("file:///etc/passwd"), "order: .*URL"),
    "an order at a bracket": ("newOrder", location("https://%5B/order"), "order: .*URL"),
    "a challenge at a bracket": ("authorization", challenge(url="https://%5B%5D/c"), "authorization: .*URL"),
    "a refusal with a status beyond numbers": ("newOrder", raw(BEYOND_NUMBERS, 403), "order: .*rejectedIdentifier"),
    "an order without finalize": ("newOrder", members(finalize=None), "order: .*finalize"),
    "an order with a number for finalize": ("newOrder", members(finalize=5), "order: .*finalize"),
    "an order without authorizations": ("newOrder", members(authorizations=None), "order: .*authorizations"),
    "an order with an object for authorizations": ("newOrder", members(authorizations={}), "order: .*authorizations"),
    "an order with 200 authorizations": ("newOrder", members(authorizations=["http://127.0.0.1:1/a"] * 200), "order: .*more than"),
    "an order of an unknown state": ("newOrder", members(status="strange"), "order: .*status"),
    "an order that is valid already": ("newOrder", members(status="valid"), "order: .*valid already"),
    "an order deep in lists": ("newOrder", raw(b"[" * DEEP + b"]" * DEEP, 201), "order: "),
    "an order deep in objects": ("newOrder", raw(b'{"a":' * 40_000, 201), "order: "),
    "an order that redirects for ever": ("newOrder", redirect, "order: HTTP 302"),
    "a refusal of HTML": ("newOrder", raw(b"<html>" + b"x" * 100_000, 403), "order: .*HTTP 403"),
    "a refusal that is a list": ("newOrder", raw([1, 2], 400), "order: .*HTTP 400"),
    "a refusal of wrong types": ("newOrder", raw({"type": 5, "detail": {}, "subproblems": 7}, 400), "order: .*HTTP 400"),
    "a refusal with control characters": ("newOrder", lambda *_: problem(403, "rejectedIdentifier", ESCAPE), "order: .*rejectedIdentifier"),
    "a refusal of 200 KB": ("newOrder", lambda *_: problem(403, "rejectedIdentifier", "y" * 200_000), "order: .*rejectedIdentifier"),
    "an authorization that is no JSON": ("authorization", raw(b"nonsense"), "authorization: .*not JSON"),
    "an authorization of another name": (
        "authorization", members(identifier={"type": "dns", "value": "victim.example.test"}), "authorization: .*victim.example.test"),
    "an authorization of an address": ("authorization", members(identifier={"type": "ip", "value": "192.0.2.1"}), "authorization: .*not ordered"),
    "an authorization that is invalid": ("authorization", members(status="invalid"), "authorization: .*invalid from the start"),
    "an authorization without challenges": ("authorization", members(challenges=[]), "challenge: no usable challenge"),
    "an authorization with a number for challenges": ("authorization", members(challenges=3), "authorization: .*challenges"),
    "an authorization that redirects": ("authorization", redirect, "authorization: HTTP 302"),
    "a challenge of an unknown type": ("authorization", challenge(type="magic-01"), "challenge: no usable challenge.*magic-01"),
    "a challenge at a foreign host without TLS": ("authorization", challenge(url="http://192.0.2.1/c"), "authorization: .*https"),
    "a token with a path": ("authorization", token("../../../../../../tmp/kakuremichi-token"), "challenge: no usable challenge"),
    "a token with a slash": ("authorization", token("aaaaaaaaaaaaaaaaaaaaaaaa/bbbbbbbb"), "challenge: no usable challenge"),
    "a token with a percent sign": ("authorization", token("aaaaaaaaaaaaaaaaaaaaaaaa%2fbbbbbbb"), "challenge: no usable challenge"),
    "a token with a NUL": ("authorization", token("aaaaaaaaaaaaaaaaaaaaaaaa\0bbbbbbb"), "challenge: no usable challenge"),
    "a token of one character": ("authorization", token("a"), "challenge: no usable challenge"),
    "an empty token": ("authorization", token(""), "challenge: no usable challenge"),
    "a token of 5,000 characters": ("authorization", token("a" * 5_000), "challenge: no usable challenge"),
    "a token that is a number": ("authorization", token(5), "(challenge|authorization): "),
    "a challenge's answer that is no JSON": ("challenge", raw(b"ok"), "challenge: .*not JSON"),
    "a refused challenge": ("challenge", lambda *_: problem(400, "malformed"), "challenge: .*malformed"),
    "a refused CSR": ("finalize", lambda *_: problem(400, "badCSR"), "finalize: .*badCSR"),
    "a finalized order that is no JSON": ("finalize", raw(b"{"), "finalize: .*not JSON"),
    "a finalized order that is invalid": (
        "finalize", members(status="invalid", error={"type": "urn:ietf:params:acme:error:caa", "detail": "no"}), "finalize: .*caa"),
    "a valid order without a certificate": ("finalize", members(certificate=None), "finalize: .*without a certificate"),
    "a certificate at a foreign host without TLS": ("finalize", members(certificate="http://192.0.2.1/c"), "finalize: .*https"),
    "an empty chain": ("certificate", raw(b""), "verification: .*empty"),
    "a chain of garbage": ("certificate", raw(b"\x00\xff" * 500), "verification: "),
    "a page for a chain": ("certificate", raw(b"<html>sorry</html>"), "verification: "),
    "a chain of DER": ("certificate", chain(lambda *of: split_chain(good(*of))[0]), "verification: "),
    "a broken certificate": (
        "certificate", raw(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "verification: .*cannot be read"),
    "garbage behind the leaf": (
        "certificate", chain(lambda *of: leaf(*of) + b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"), "verification: "),
    "a chain of 50 certificates": (
        "certificate", chain(lambda issuer, *of: leaf(issuer, *of) + intermediate(issuer) * 49), "verification: .*more than"),
    "a private key in the chain": (
        "certificate", chain(lambda *of: good(*of) + key_pem(new_key()).encode()), "verification: .*PRIVATE KEY"),
    "a certificate of another name": (
        "certificate", chain(lambda issuer, names, key: good(issuer, ["victim.example.test"], key)), "verification: .*does not name"),
    "a certificate of another key": (
        "certificate", chain(lambda issuer, names, key: good(issuer, names, new_key().public_key())), "verification: .*another key"),
    "an expired certificate": (
        "certificate", chain(lambda issuer, names, key: issuer.issue(names, key, 3_600, age=7_200)), "verification: .*expired"),
    "a certificate of the day after tomorrow": (
        "certificate", chain(lambda issuer, names, key: issuer.issue(names, key, 86_400 * 9, age=-86_400 * 2)), "verification: .*begins"),
    "an issuer that has not signed": ("certificate", chain(of_another_issuer), "verification: "),
    "the issuer before the leaf": (
        "certificate", chain(lambda issuer, *of: intermediate(issuer) + leaf(issuer, *of)), "verification: .*another key"),
    "a chain that redirects": ("certificate", redirect, "certificate: HTTP 302"),
    # These are tried three times more.
    "an order of 10 MB": ("newOrder", raw(b'{"a":"' + b"x" * TEN_MEGABYTES + b'"}', 201), "order: no answer"),
    "a chain of 10 MB": ("certificate", raw(b"#" * TEN_MEGABYTES), "certificate: no answer"),
    "an order with a head of 2 MB": ("newOrder", raw(b"{}", 201, X_Long="x" * (2 << 20)), "order: no answer"),
    "a reset at the order": ("newOrder", action(RESET), "order: no answer"),
    "a reset in the authorization": ("authorization", action(CUT), "authorization: no answer"),
    "a reset in the chain": ("certificate", action(CUT), "certificate: no answer"),
    "a CA with a fault": ("newOrder", raw(b"oops", 503), "order: .*fault"),
    "a CA with a fault and no time": ("newOrder", raw(b"oops", 500, Retry_After="nonsense"), "order: .*fault"),
}

# The directory is read anew by a gateway that has started.
DIRECTORY = {
    "no JSON": (raw(b"<html>"), "directory: .*not JSON"),
    "a list": (raw([]), "directory: "),
    "without newOrder": (members(newOrder=None), "directory: newOrder is missing"),
    "with a number for newOrder": (members(newOrder=7), "directory: newOrder has another type"),
    "with a bracket for a host": (members(newOrder="https://%5B/"), "directory: .*URL"),
    "with a foreign URL without TLS": (members(newOrder="http://192.0.2.1/new"), "directory: .*https"),
    "deep in lists": (raw(b"[" * DEEP), "directory: "),
    "that redirects for ever": (redirect, "directory: HTTP 302"),
    "not found": (lambda *_: problem(404, "malformed"), "directory: "),
    "with 500 profiles": (members(meta={"profiles": {f"p{number}": "x" for number in range(500)}}), "directory: more than"),
}


def install(ca, names):
    """Each name of the dictionary has its case from now on."""
    def changer(kind):
        def change(request, answer):
            case = ORDER[names[request.name]] if request.name in names else None
            return case[1](request, answer) if case and case[0] == kind and answer.status < 300 else None
        return change

    ca.alter = {kind: changer(kind) for kind in {case[0] for case in ORDER.values()}}
