"""A UDP relay between agent and gateway that loses, doubles, displaces and damages datagrams, as a bad link or a NAT does."""

import random
import select
import socket
import threading


class Relay:
    """Agents talk to `port`; each has a socket of its own towards the gateway, as behind a NAT."""

    def __init__(self, gateway_port, seed):
        self.gateway = ("127.0.0.1", gateway_port)
        self.source = random.Random(seed)
        self.loss = self.duplication = self.displacement = self.corruption = 0.0
        self.is_dead = False
        self.rebind_wanted = False
        self.front = self.open()
        self.front.bind(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self.backs = {}
        self.held = None
        self.ended = False
        self.passed = self.lost = 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    @staticmethod
    def open():
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        opened.setblocking(False)
        return opened

    def set(self, loss=0.0, duplication=0.0, displacement=0.0, corruption=0.0):
        self.loss, self.duplication, self.displacement, self.corruption = loss, duplication, displacement, corruption

    def run(self):
        while not self.ended:
            sockets = [self.front, *self.backs.values()]
            ready = select.select(sockets, [], [], 0.02)[0]
            if self.rebind_wanted:
                self.rebind_wanted = False
                for back in self.backs.values():
                    back.close()
                self.backs = {client: self.open() for client in self.backs}
                continue
            for readable in ready:
                self.drain(readable)
            self.release()

    def drain(self, readable):
        for _ in range(64):
            try:
                datagram, sender = readable.recvfrom(65536)
            except OSError:
                return
            if readable is self.front:
                if sender not in self.backs:
                    self.backs[sender] = self.open()
                self.judge(self.backs[sender], datagram, self.gateway)
            else:
                client = next(client for client, back in self.backs.items() if back is readable)
                self.judge(self.front, datagram, client)

    def judge(self, out, datagram, to):
        draw = self.source.random
        if self.is_dead or draw() < self.loss:
            self.lost += 1
            return
        if draw() < self.corruption:
            damaged = bytearray(datagram)
            damaged[self.source.randrange(len(damaged))] ^= 1 << self.source.randrange(8)
            datagram = bytes(damaged)
        if draw() < self.displacement and self.held is None:
            self.held = (out, datagram, to)
            return
        for _ in range(2 if draw() < self.duplication else 1):
            self.send(out, datagram, to)
        self.release()

    def release(self):
        if self.held is not None:
            held, self.held = self.held, None
            self.send(*held)

    def send(self, out, datagram, to):
        try:
            out.sendto(datagram, to)
            self.passed += 1
        except OSError:
            self.lost += 1

    def close(self):
        self.ended = True
        self.thread.join(2)
        for opened in [self.front, *self.backs.values()]:
            opened.close()
