"""The web service that every side publishes, and the configurations of the proxies that are compared."""

import os
import shutil
import subprocess

from interop.product import wait_for_port
from interop.system import free_port

DOMAIN = "localhost"
LARGE = 100_000_000
SMALL = 100

COMMON = """
daemon off; pid {directory}/{name}.pid; error_log {directory}/{name}.log warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off; client_max_body_size 0; keepalive_requests 100000000; sendfile on; tcp_nodelay on;
    client_body_temp_path {directory}/{name}-body; proxy_temp_path {directory}/{name}-proxy; fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi; scgi_temp_path {directory}/{name}-scgi;
"""
ORIGIN = "worker_processes 1;" + COMMON + """
    upstream sink {{ server 127.0.0.1:{sink}; }}
    server {{
        listen {address}:{port} backlog=1024; root {directory}/www;
        location = /small {{ return 200 "{small}"; }}
        location = /sink {{ proxy_pass http://sink; proxy_http_version 1.1; proxy_request_buffering off; }}
    }}
}}
"""
NGINX = "worker_processes auto;" + COMMON + """
    upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=1024; ssl_certificate {directory}/site.pem; ssl_certificate_key {directory}/site.key;
        ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:1m;
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;
            proxy_request_buffering off; proxy_max_temp_file_size 0;
        }}
        {more}
    }}
}}
"""
HAPROXY = """
global
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend edge
    bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1
    http-request set-header X-Forwarded-Proto https
    default_backend origin
backend origin
    server origin {origin}
"""
# No automatic certificates, no certificate authority, nothing written outside of the directory.
CADDY = """
{{
    admin off
    auto_https off
    skip_install_trust
    storage file_system {directory}/caddy
    log {{
        output discard
    }}
    servers {{
        protocols h1 h2
    }}
}}
https://{domain}:{port} {{
    bind 127.0.0.1
    tls {directory}/site.pem {directory}/site.key
    reverse_proxy {origin} {{
        transport http {{
            keepalive_idle_conns_per_host 256
        }}
    }}
}}
"""


class Service:
    """nginx with a small answer, a large file, and a sink for uploads."""

    def __init__(self, lab):
        if shutil.which("nginx") is None:
            raise RuntimeError("nginx is missing: it serves what is published")
        self.lab = lab
        self.directory = lab.private_directory("web")
        os.makedirs(os.path.join(self.directory, "www"))
        self.large = os.path.join(self.directory, "www", "large")
        with open(self.large, "wb") as file:
            for _ in range(LARGE // 1_000_000):
                file.write(os.urandom(1_000_000))
        for path in (os.path.dirname(self.large), self.large):
            lab.own(path, 0o755)
        self.make_certificate()
        self.port = free_port()
        with open(os.path.join(os.path.dirname(__file__), "sink.py")) as file:
            self.sink_script = lab.write("sink.py", file.read(), 0o644)
        self.process = self.start_origin("origin", "127.0.0.1", self.port)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start_origin(self, name, address, port, namespace=None):
        """A sink and the nginx in front of it, in a namespace as root because of port 80."""
        sink_port = free_port()
        sink = self.lab.start(f"{name}-sink", ["/usr/bin/python3", "-B", self.sink_script, str(sink_port)], namespace=namespace)
        process = self.nginx(name, ORIGIN, namespace, address=address, port=port, sink=sink_port, small="x" * SMALL)
        wait_for_port(sink, sink_port)
        wait_for_port(process, port)
        return process

    def start_nginx(self, name, port, origin, namespace=None, connections=2048, more=""):
        """`more`: lines of its server."""
        return self.nginx(name, NGINX, namespace, connections, port=port, origin=origin, more=more)

    def nginx(self, name, template, namespace, connections=2048, **values):
        text = template.format(directory=self.directory, name=name, connections=connections, **values)
        if namespace:
            text = "user root;\n" + text
        configuration = self.lab.write(f"web/{name}.conf", text)
        return self.lab.start(
            name, ["nginx", "-p", self.directory, "-e", f"{self.directory}/{name}-start.log", "-c", configuration],
            unprivileged=namespace is None, namespace=namespace)

    def start_haproxy(self, port):
        with open(self.certificate) as certificate, open(self.key) as key:
            both = self.lab.write("web/both.pem", certificate.read() + key.read())
        configuration = self.lab.write("web/haproxy.conf", HAPROXY.format(port=port, both=both, origin=self.address))
        return self.lab.start("haproxy", ["haproxy", "-db", "-f", configuration])

    def start_caddy(self, port):
        text = CADDY.format(directory=self.directory, domain=DOMAIN, port=port, origin=self.address)
        configuration = self.lab.write("web/Caddyfile", text)
        home = {"HOME": self.directory, "XDG_CONFIG_HOME": self.directory, "XDG_DATA_HOME": self.directory}
        return self.lab.start(
            "caddy", ["caddy", "run", "--config", configuration, "--adapter", "caddyfile"], environment={"PATH": "/usr/bin:/bin", **home})

    def make_certificate(self):
        self.certificate, self.key = os.path.join(self.directory, "site.pem"), os.path.join(self.directory, "site.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
             f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", self.key, "-out", self.certificate],
            check=True, capture_output=True)
        self.lab.own(self.key, 0o600)
        self.lab.own(self.certificate, 0o644)
