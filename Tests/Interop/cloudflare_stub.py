#!/usr/bin/env python3
"""As much of Cloudflare's API as DNS-01 needs: zones by name, dns_records, its error envelope. cloudflare_stub.py PORT"""
import http.server
import json
import sys
import urllib.parse

ZONE = {"id": "023e105f4ecef8ad9ca31a8372d0c353", "name": "example.com"}
records = {}
busy = {"left": 2}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, document, fields=()):
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def success(self, result):
        self.answer(200, {"success": True, "errors": [], "messages": [], "result": result})

    def refuse(self, status, code, message, chain=(), fields=()):
        error = {"code": code, "message": message}
        if chain:
            error["error_chain"] = [{"code": c, "message": m} for c, m in chain]
        self.answer(status, {"success": False, "errors": [error], "messages": [], "result": None}, fields)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.strip("/").split("/")
        if parts == ["dump"]:
            return self.answer(200, "".join(r["content"] + "\n" for r in records.values()))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "bad-token":
            return self.refuse(403, 9109, "Invalid access token")
        if token == "no-permission":
            return self.refuse(403, 10000, "Authentication error")
        if token == "malformed":
            return self.refuse(400, 6003, "Invalid request headers", [(6111, "Invalid format for Authorization header")])
        if token == "limited":
            return self.refuse(429, 10000, "Rate limited. Please wait and consider throttling", fields=[("Retry-After", "120")])
        if token == "busy" and busy["left"] > 0:
            busy["left"] -= 1
            return self.refuse(429, 10000, "Rate limited. Please wait and consider throttling", fields=[("Retry-After", "1")])
        if parts == ["zones"]:
            found = [ZONE] if query.get("name") == ZONE["name"] and token != "no-zones" else []
            return self.success(found)
        if parts[:3] != ["zones", ZONE["id"], "dns_records"]:
            return self.refuse(404, 7003, "Could not route to " + url.path)
        if self.command == "GET":
            return self.success([r for r in records.values() if r["name"] == query.get("name") and r["type"] == query.get("type")])
        if self.command == "POST":
            new = json.loads(body)
            if any((r["name"], r["content"]) == (new["name"], new["content"]) for r in records.values()):
                return self.refuse(400, 81058, "An identical record already exists.")
            new["id"] = f"{len(records) + 1:032x}"
            records[new["id"]] = new
            return self.success(new)
        if self.command == "DELETE" and records.pop(parts[-1], None):
            return self.success({"id": parts[-1]})
        return self.refuse(404, 81044, "Record does not exist.")

    do_GET = do_POST = do_DELETE = handle_request


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
