"""The two sides that are compared, with the web service that both of them publish."""

import os
import socket
import subprocess

from interop.nodes import Agent, Gateway
from interop.product import wait_for_port
from interop.system import free_port, wait_until

DOMAIN = "localhost"
LARGE = 100_000_000

COMMON = """
daemon off; pid {directory}/{name}.pid; error_log {directory}/{name}.log warn;
events {{ worker_connections 2048; }}
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
PEER = "worker_processes auto;" + COMMON + """
    upstream origin {{ server {origin}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024; ssl_certificate {directory}/site.pem; ssl_certificate_key {directory}/site.key;
        ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:1m;
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;
            proxy_request_buffering off; proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


def tree(pid):
    """A process and all that it started."""
    result = [pid]
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            for child in file.read().split():
                result += tree(int(child))
    except OSError:
        pass
    return result


def processor_time(pid):
    """User and system seconds of a process and its children."""
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def memory(pid, field):
    """VmRSS or VmHWM in MB, summed over the process and its children."""
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/status") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))
        except OSError:
            pass
    return total / 1024


class Service:
    """nginx with a small answer, a large file, and a sink for uploads."""

    def __init__(self, lab):
        self.lab = lab
        self.directory = lab.private_directory("web")
        os.makedirs(os.path.join(self.directory, "www"))
        with open(os.path.join(self.directory, "www", "large"), "wb") as file:
            for _ in range(LARGE // 1_000_000):
                file.write(os.urandom(1_000_000))
        self.large = os.path.join(self.directory, "www", "large")
        for path in (os.path.join(self.directory, "www"), self.large):
            lab.own(path, 0o755)
        self.make_certificate()
        self.port = free_port()
        script = os.path.join(os.path.dirname(__file__), "sink.py")
        with open(script) as file:
            self.sink_script = lab.write("sink.py", file.read(), 0o644)
        self.process = self.start_origin("origin", "127.0.0.1", self.port)

    def start_origin(self, name, address, port, namespace=None):
        """A sink and the nginx in front of it, in a namespace as root because of port 80."""
        sink_port = free_port()
        sink = self.lab.start(f"{name}-sink", ["/usr/bin/python3", "-B", self.sink_script, str(sink_port)], namespace=namespace)
        process = self.nginx(name, ORIGIN, namespace, address=address, port=port, sink=sink_port, small="x" * 100)
        wait_for_port(sink, sink_port)
        wait_for_port(process, port)
        return process

    def start_peer(self, name, port, origin, namespace=None):
        return self.nginx(name, PEER, namespace, port=port, origin=origin)

    def nginx(self, name, template, namespace, **values):
        text = template.format(directory=self.directory, name=name, **values)
        if namespace:
            text = "user root;\n" + text
        configuration = self.lab.write(f"web/{name}.conf", text)
        return self.lab.start(
            name, ["nginx", "-p", self.directory, "-e", f"{self.directory}/{name}-start.log", "-c", configuration],
            unprivileged=namespace is None, namespace=namespace)

    def make_certificate(self):
        self.certificate, self.key = os.path.join(self.directory, "site.pem"), os.path.join(self.directory, "site.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
             f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", self.key, "-out", self.certificate],
            check=True, capture_output=True)
        self.lab.own(self.key, 0o600)
        self.lab.own(self.certificate, 0o644)


def make_tunnel(program, lab, name):
    """A directory with the configurations of a gateway and an agent, and the gateway's UDP port."""
    directory = lab.private_directory(name)
    port = free_port(socket.SOCK_DGRAM)
    result = program.run(lab, ["init", "--domain", "app.example.com", "--endpoint", f"127.0.0.1:{port}", "--out", directory])
    if result.returncode != 0:
        raise RuntimeError(f"kakuremichi init: {result.stderr.strip()}")
    return directory, port


class Ours:
    """kakuremichi: TLS at the gateway, WireGuard to the agent, the web service behind it."""

    name = "kakuremichi"
    namespace = None

    def __init__(self, program, lab, service):
        self.program, self.lab, self.service = program, lab, service
        self.configurations = self.init("tunnel")
        self.agent = Agent(program, lab, os.path.join(self.configurations, "agent.conf"), f"127.0.0.1:{service.port}")
        self.gateway = Gateway(
            program, lab, os.path.join(self.configurations, "gateway.conf"), [f"{DOMAIN}=10.1.0.2"],
            options=["--cert", service.certificate, "--key", service.key])
        self.port = self.gateway.https

    def init(self, name):
        """Configurations of a tunnel of its own."""
        return make_tunnel(self.program, self.lab, name)[0]

    def processes(self):
        return {"gateway": self.gateway.process.pid, "agent": self.agent.process.pid, "origin": self.service.process.pid}

    def stop_front(self):
        self.gateway.process.stop()

    def start_front(self):
        """Without waiting for anything."""
        self.gateway.process = self.program.start(self.lab, "gateway", self.gateway.arguments)


class Nginx:
    """nginx: TLS straight to the web service, no tunnel."""

    name = "nginx"
    namespace = None

    def __init__(self, lab, service):
        self.service = service
        self.port = free_port()
        self.start_front()
        wait_for_port(self.process, self.port)

    def start_front(self):
        self.process = self.service.start_peer("peer", self.port, f"127.0.0.1:{self.service.port}")

    def stop_front(self):
        self.process.stop()

    def processes(self):
        return {"nginx": self.process.pid, "origin": self.service.process.pid}


def wait_until_answered(side, timeout=30, interval=0.2):
    """Until the small page comes over HTTPS."""
    import http.client
    import ssl

    context = ssl.create_default_context(cafile=side.service.certificate)

    def answered():
        connection = http.client.HTTPSConnection(DOMAIN, side.port, timeout=5, context=context)
        try:
            connection.request("GET", "/small")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    wait_until(answered, timeout, f"{side.name} answers", interval=interval)
