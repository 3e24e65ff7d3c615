"""A certificate authority that speaks ACME (RFC 8555, 9773) over plain HTTP on loopback, for tests: it notes everything, and is as wrong
as a test wants it to be.

`journal` has each request; `violations` what no client may do; `validations` each look at a challenge. Faults: `instead[kind]` is
a function of a `Request` that may give an `Answer` in place of the CA's, `alter[kind]` one of a `Request` and the `Answer` to be.
"""

import datetime
import http.client
import json
import re
import secrets
import threading
import time

from .acme_http import NAMESPACE, Answer, Server, abort, problem
from .acme_keys import Issuer, certificate_id, decode, encode, is_signed, jwk_of_certificate, read_request, split_chain, thumbprint
from .system import free_port

KINDS = [
    "directory", "newNonce", "newAccount", "account", "newOrder", "order", "authorization", "challenge", "finalize", "certificate",
    "renewalInfo", "keyChange", "revokeCert"]


class Refusal(Exception):
    def __init__(self, answer):
        super().__init__(answer.body)
        self.answer = answer


class Request:
    """What came: `kind`, `payload` (None for POST-as-GET), `account`; `name` is the first of the order it is about."""

    def __init__(self, kind, path, identifier):
        self.kind, self.path, self.identifier = kind, path, identifier
        self.time = time.monotonic()
        self.payload = self.account = self.order = self.status = self.thumbprint = self.user_agent = None

    @property
    def name(self):
        return self.order.names[0] if self.order else None

    def __repr__(self):
        return f"{self.kind} {self.path} {self.name} {self.status}"


class Order:
    def __init__(self, number, account, names):
        self.number, self.account, self.names = number, account, names
        self.status, self.error, self.chain, self.polls = "pending", None, None, 0
        self.profile = self.replaces = None
        self.authorizations = {}


class AcmeCA:
    def __init__(self, name="Stub CA"):
        self.issuer = Issuer(name)
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.lock = threading.RLock()
        self.journal, self.violations, self.validations = [], [], []
        self.nonces, self.accounts, self.orders, self.tokens = set(), {}, {}, {}
        # DER of every leaf by its RFC 9773 identifier, and those that were revoked.
        self.issued, self.revoked = {}, []
        self.instead, self.alter = {}, {}
        # Where names point to: (address, port) of each place a validator may get to. A function of a name, or a list for all.
        self.perspectives = []
        # Cleared: challenges wait to be looked at.
        self.is_looking = threading.Event()
        self.is_looking.set()
        self.challenge_types = ["http-01"]
        # Seconds; a function of a name, or a number for all.
        self.lifetime = 90 * 86_400
        # (start, end) in seconds since 1970; a function of (name, certificate identifier), or None for 404.
        self.window = None
        self.renewal_retry_after = None
        self.has_renewal_info = False
        self.profiles = {}
        self.processing_polls = 0
        self.is_ready_at_once = self.is_authorized_at_once = False
        self.server = None
        self.connections = set()
        self.start()

    @property
    def directory(self):
        return self.base + "/directory"

    # Connections

    def start(self):
        self.server = Server(("127.0.0.1", self.port), self)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        """Its port refuses connections, and those that are there break off."""
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()
            for connection in list(self.connections):
                abort(connection)

    # Asking

    def requests(self, kind, name=None, since=0):
        with self.lock:
            return [one for one in self.journal if one.kind == kind and one.time >= since and (name is None or one.name == name)]

    def leaves(self, name):
        """Identifiers of the certificates that were issued for a name, in order."""
        return [order.identifier for order in list(self.orders.values()) if order.chain and name in order.names]

    def failed_validations(self):
        return [one for one in self.validations if one["reason"]]

    # Answering

    def handle(self, method, path, headers, body):
        match = re.fullmatch(r"/(\w+)(?:/([\w.-]+))?", path)
        kind = match[1] if match and match[1] in KINDS else "unknown"
        request = Request(kind, path, match and match[2])
        request.ca, request.user_agent = self, headers.get("User-Agent")
        try:
            answer = self.answer(request, method, headers, body)
        except Refusal as refusal:
            answer = refusal.answer
        with self.lock:
            if kind in self.alter:
                answer = self.alter[kind](request, answer) or answer
            request.status = answer.status if answer.action is None else answer.action
            self.journal.append(request)
            if kind not in ("directory", "renewalInfo") and "Replay-Nonce" not in answer.fields:
                nonce = encode(secrets.token_bytes(16))
                self.nonces.add(nonce)
                answer.fields = {"Replay-Nonce": nonce, **answer.fields}
        return answer

    def answer(self, request, method, headers, body):
        kind = request.kind
        with self.lock:
            if kind in ("order", "finalize", "certificate"):
                request.order = self.orders.get(request.identifier)
            elif kind in ("authorization", "challenge"):
                number, _, rest = (request.identifier or "").partition(".")
                request.order = self.orders.get(number)
                request.identifier = rest
            if method == "POST":
                self.check_signature(request, headers, body)
            elif kind not in ("directory", "newNonce", "renewalInfo"):
                self.violate(405, "malformed", f"{method} of {request.path}")
            if kind == "newOrder":
                request.order = self.make_order(request)
            if kind in self.instead and (answer := self.instead[kind](request)):
                return answer
            if kind not in ("challenge", "unknown"):
                return getattr(self, "on_" + kind)(request)
        if kind == "challenge":
            return self.on_challenge(request)
        return problem(404, "malformed", "no such resource")

    def violate(self, status, kind, detail):
        self.violations.append(detail)
        raise Refusal(problem(status, kind, detail))

    def check_signature(self, request, headers, body):
        """RFC 8555 section 6.2 to 6.5."""
        if headers.get("Content-Type") != "application/jose+json":
            self.violate(415, "malformed", f"Content-Type {headers.get('Content-Type')}")
        jws = json.loads(body)
        protected = json.loads(decode(jws["protected"]))
        payload = decode(jws["payload"])
        request.payload = json.loads(payload) if payload else None
        if set(jws) != {"protected", "payload", "signature"} or protected.get("alg") != "ES256":
            self.violate(400, "malformed", f"members {list(jws)}, alg {protected.get('alg')}")
        if protected.get("url") != self.base + request.path:
            self.violate(400, "unauthorized", f"url {protected.get('url')} at {request.path}")
        if ("jwk" in protected) == ("kid" in protected):
            self.violate(400, "malformed", "neither or both of jwk and kid")
        if "jwk" in protected and request.kind not in ("newAccount", "revokeCert") or "kid" in protected and request.kind == "newAccount":
            self.violate(400, "malformed", f"jwk or kid in {request.kind}")
        request.jwk = protected.get("jwk")
        if "kid" in protected:
            request.account = self.accounts.get(protected["kid"])
            if request.account is None:
                raise Refusal(problem(400, "accountDoesNotExist"))
            request.jwk = request.account["jwk"]
        request.thumbprint = thumbprint(request.jwk)
        if not is_signed(jws, request.jwk):
            self.violate(400, "malformed", f"a wrong signature of {request.kind}")
        if protected.get("nonce") not in self.nonces:
            # Nonces of an earlier life may be used in good faith.
            raise Refusal(problem(400, "badNonce"))
        self.nonces.remove(protected["nonce"])
        if request.account and request.account["status"] != "valid":
            raise Refusal(problem(401, "unauthorized", "the account is deactivated"))
        if request.order and request.order.account is not request.account:
            self.violate(403, "unauthorized", "an order of another account")
        request.protected = protected

    def on_directory(self, _):
        members = {name: f"{self.base}/{name}" for name in ("newNonce", "newAccount", "newOrder", "keyChange", "revokeCert")}
        if self.has_renewal_info:
            members["renewalInfo"] = f"{self.base}/renewalInfo"
        members["meta"] = {"termsOfService": f"{self.base}/terms", **({"profiles": self.profiles} if self.profiles else {})}
        return Answer(200, members)

    def on_newNonce(self, _):
        return Answer(200, b"", {"Cache-Control": "no-store"})

    def on_newAccount(self, request):
        for url, account in self.accounts.items():
            if account["thumbprint"] == request.thumbprint:
                return Answer(200, {"status": account["status"], "contact": account["contact"]}, {"Location": url})
        if request.payload.get("onlyReturnExisting"):
            return problem(400, "accountDoesNotExist")
        if request.payload.get("termsOfServiceAgreed") is not True:
            self.violate(403, "userActionRequired", "the terms are not agreed to")
        url = f"{self.base}/account/{len(self.accounts) + 1}"
        self.accounts[url] = {
            "jwk": request.jwk, "thumbprint": request.thumbprint, "contact": request.payload.get("contact", []), "status": "valid"}
        return Answer(201, {"status": "valid", "contact": self.accounts[url]["contact"]}, {"Location": url})

    def on_account(self, request):
        account = request.account
        if request.payload and request.payload.get("status") == "deactivated":
            account["status"] = "deactivated"
        return Answer(200, {"status": account["status"], "contact": account["contact"]})

    # Orders

    def make_order(self, request):
        identifiers = request.payload.get("identifiers", [])
        if any(set(one) != {"type", "value"} or one["type"] != "dns" for one in identifiers) or not identifiers:
            self.violate(400, "malformed", f"identifiers {identifiers}")
        order = Order(str(len(self.orders) + 1), request.account, [one["value"] for one in identifiers])
        order.profile, order.replaces = request.payload.get("profile"), request.payload.get("replaces")
        if order.profile is not None and order.profile not in self.profiles:
            self.violate(400, "invalidProfile", f"profile {order.profile}")
        if order.replaces is not None and order.replaces not in self.issued:
            self.violate(404, "malformed", f"replaces {order.replaces}, which was not issued")
        for name in order.names:
            order.authorizations[name] = {
                "token": encode(secrets.token_bytes(32)), "status": "valid" if self.is_authorized_at_once or self.is_ready_at_once else "pending",
                "error": None}
            self.tokens[order.authorizations[name]["token"]] = order
        if self.is_ready_at_once:
            order.status = "ready"
        self.orders[order.number] = order
        return order

    def order_object(self, order):
        if order.status == "pending":
            states = {one["status"] for one in order.authorizations.values()}
            order.status = "invalid" if "invalid" in states else "ready" if states == {"valid"} else "pending"
        members = {
            "status": order.status, "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [f"{self.base}/authorization/{order.number}.{name}" for name in order.names],
            "finalize": f"{self.base}/finalize/{order.number}"}
        if order.status == "valid":
            members["certificate"] = f"{self.base}/certificate/{order.number}"
        if order.status == "invalid":
            members["error"] = next((one["error"] for one in order.authorizations.values() if one["error"]), order.error)
        return members

    def location(self, order):
        return {"Location": f"{self.base}/order/{order.number}"}

    def on_newOrder(self, request):
        return Answer(201, self.order_object(request.order), self.location(request.order))

    def on_order(self, request):
        order = request.order or self.missing()
        fields = {}
        if order.status == "processing":
            order.polls -= 1
            if order.polls <= 0:
                order.status = "valid"
            else:
                fields = {"Retry-After": "1"}
        return Answer(200, self.order_object(order), fields)

    def authorization_object(self, order, name):
        authorization = order.authorizations[name]
        challenges = []
        for kind in self.challenge_types:
            challenge = {
                "type": kind, "url": f"{self.base}/challenge/{order.number}.{name}", "status": authorization["status"], "token": authorization["token"]}
            if authorization["error"]:
                challenge["error"] = authorization["error"]
            challenges.append(challenge)
        return {"identifier": {"type": "dns", "value": name}, "status": authorization["status"], "challenges": challenges}

    def missing(self):
        raise Refusal(problem(404, "malformed", "no such resource"))

    def on_authorization(self, request):
        order = request.order or self.missing()
        return Answer(200, self.authorization_object(order, request.identifier))

    def on_challenge(self, request):
        """The look from everywhere comes before the answer: the authorization is decided at the first question."""
        order, name = request.order or self.missing(), request.identifier
        if request.payload != {}:
            self.violate(400, "malformed", f"a challenge is answered with {request.payload}")
        authorization = order.authorizations[name]
        self.is_looking.wait(10)
        places = self.perspectives(name) if callable(self.perspectives) else self.perspectives
        looks = [
            threading.Thread(target=self.look, args=(place, name, authorization["token"], request.thumbprint), daemon=True) for place in places]
        for look in looks:
            look.start()
        for look in looks:
            look.join()
        with self.lock:
            reasons = [one["reason"] for one in self.validations if one["token"] == authorization["token"] and one["reason"]]
            authorization["status"] = "invalid" if reasons else "valid"
            if reasons:
                authorization["error"] = {"type": NAMESPACE + "unauthorized", "detail": reasons[0], "status": 403}
            challenge = self.authorization_object(order, name)["challenges"][0]
        return Answer(200, challenge, {"Link": f'<{self.base}/authorization/{order.number}.{name}>;rel="up"'})

    def look(self, place, name, token, print_of_account):
        """RFC 8555 section 8.3, without following redirects."""
        reason = None
        try:
            connection = http.client.HTTPConnection(*place, timeout=10)
            connection.request("GET", f"/.well-known/acme-challenge/{token}", headers={"Host": name, "User-Agent": "validator"})
            response = connection.getresponse()
            body = response.read(1000)
            connection.close()
            if response.status != 200 or body != f"{token}.{print_of_account}".encode():
                reason = f"{place[0]} answers {response.status} {body[:100]!r}"
        except (OSError, http.client.HTTPException) as error:
            reason = f"{place[0]}: {error!r}"
        with self.lock:
            self.validations.append({"name": name, "token": token, "place": place, "reason": reason, "thumbprint": print_of_account})

    # Certificates

    def on_finalize(self, request):
        order = request.order or self.missing()
        if self.order_object(order)["status"] != "ready":
            return problem(403, "orderNotReady", f"the order is {order.status}")
        try:
            names, key = read_request(decode(request.payload["csr"]))
        except ValueError as error:
            self.violate(400, "badCSR", str(error))
        if sorted(names) != sorted(order.names):
            self.violate(400, "badCSR", f"the CSR is for {names}, the order for {order.names}")
        order.key = key
        order.chain = self.issuer.issue(names, key, self.lifetime(names[0]) if callable(self.lifetime) else self.lifetime)
        leaf = split_chain(order.chain)[0]
        order.identifier = certificate_id(leaf)
        self.issued[order.identifier] = leaf
        order.polls = self.processing_polls
        order.status = "processing" if order.polls else "valid"
        return Answer(200, self.order_object(order), {**self.location(order), **({"Retry-After": "1"} if order.polls else {})})

    def on_certificate(self, request):
        order = request.order or self.missing()
        return Answer(200, order.chain, {"Content-Type": "application/pem-certificate-chain"})

    def on_renewalInfo(self, request):
        order = next((one for one in self.orders.values() if one.chain and one.identifier == request.identifier), None)
        request.order = order
        window = self.window(order.names[0], request.identifier) if order and self.window else None
        if window is None:
            return problem(404, "malformed", "no such certificate")
        texts = [datetime.datetime.utcfromtimestamp(int(one)).strftime("%Y-%m-%dT%H:%M:%SZ") for one in window]
        return Answer(
            200, {"suggestedWindow": {"start": texts[0], "end": texts[1]}},
            {"Retry-After": str(self.renewal_retry_after)} if self.renewal_retry_after is not None else {})

    def on_keyChange(self, request):
        """RFC 8555 section 7.3.5."""
        inner = request.payload
        protected, payload = (json.loads(decode(inner[name])) for name in ("protected", "payload"))
        new = protected.get("jwk") or {}
        url = next(url for url, account in self.accounts.items() if account is request.account)
        if protected.get("url") != self.base + request.path or "nonce" in protected or not is_signed(inner, new):
            self.violate(400, "malformed", f"the inner JWS of keyChange: {protected}")
        if payload.get("account") != url or thumbprint(payload.get("oldKey")) != request.thumbprint:
            self.violate(400, "malformed", f"the payload of keyChange: {payload}")
        request.account.update(jwk=new, thumbprint=thumbprint(new))
        return Answer(200, {"status": "valid", "contact": request.account["contact"]})

    def on_revokeCert(self, request):
        der = decode(request.payload["certificate"])
        if der not in self.issued.values():
            return problem(404, "malformed", "no such certificate")
        if request.account is None and request.jwk != jwk_of_certificate(der):
            self.violate(403, "unauthorized", "revokeCert is signed by a key that has nothing to do with it")
        if der in self.revoked:
            return problem(400, "alreadyRevoked")
        self.revoked.append(der)
        return Answer(200)
