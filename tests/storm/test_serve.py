"""A real `hf_tagger serve` under hostile requests, in little memory, and told to stop under load."""

import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.processes import ROOT
from tests.storm.hostile import BODY, GONE, JSON, REQUESTS, post

MEMORY = 2 * 2**30


class Server:
    """The command as a process that may take `MEMORY` bytes of addresses."""

    def __init__(self, folder):
        command = [sys.executable, "-m", "hf_tagger.cli", "serve", str(folder), "--port", "0", "--threads", "1",
                   "--max_seconds", "3"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
        line = self.process.stderr.readline()
        assert "/tags" in line, line + self.process.stderr.read()
        self.port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, request: bytes, wait: bool = True) -> tuple[int | None, bytes]:
        """(status, body) of the answer to the bytes of a request; None where there is none, or nobody waits for it."""
        with self.connect() as client:
            answer = b""
            try:
                client.sendall(request)
            except OSError:  # it was refused before it was all sent
                pass
            try:
                while wait and (part := client.recv(2**16)):
                    answer += part
            except ConnectionError:
                pass
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else None, body

    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


@pytest.fixture
def serve(exported):  # noqa: F811
    """A function that starts a server."""
    started = []
    yield lambda: started.append(Server(exported)) or started[-1]
    for server in started:
        server.process.kill()
        server.process.communicate()


def test_whatever_is_sent_gets_an_answer_that_says_what_is_wrong_and_harms_nobody(serve, storm):
    server = serve()
    status, answer = server.ask(post(BODY))
    assert status == 200
    for _ in range(storm.rounds(4, 40)):
        slow = [server.connect() for _ in range(30)]
        for client in slow:
            client.sendall(post(BODY)[:storm.random.randint(0, 180)])
        for what, (request, right) in REQUESTS.items():
            given = request(storm.random)
            start = time.monotonic()
            with storm.trial("hostile requests"):
                found, said = server.ask(given, wait=right != GONE)
                assert server.process.poll() is None, f"{what}: {server.process.stderr.read()[-3000:]}"
                assert found in right, f"{what}: {found} {said[:500]} to {given[:300]}"
                assert found in (200, None) or set(json.loads(said)) & {"error", "detail"}, f"{what}: {said[:500]}"
            storm.most("seconds until the slowest answer to a hostile request", time.monotonic() - start)
            storm.most("MB of the server under hostile requests", server.megabytes())
        assert server.ask(post(BODY)) == (200, answer)
        for client in slow:
            client.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.process.stderr.read()


class Client(threading.Thread):
    """Asks again and again on one connection, until the server says that it closes it; notes every answer or error."""

    def __init__(self, port):
        super().__init__()
        self.port, self.answers, self.closed = port, [], False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.closed:
            try:
                connection.request("POST", "/tags", BODY, {"Content-Type": JSON})
                response = connection.getresponse()
                self.answers.append((response.status, len(json.loads(response.read()))))
                self.closed = response.headers["Connection"] == "close"
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(repr(error))
                return


def test_told_to_stop_under_load_it_answers_all_that_it_took_in_and_ends_well(serve, storm):
    for number in range(storm.rounds(2, 16)):
        server = serve()
        clients = [Client(server.port) for _ in range(storm.random.randint(8, 40))]
        for client in clients:
            client.start()
        while not all(len(client.answers) > 3 for client in clients):
            time.sleep(0.01)
        time.sleep(storm.random.uniform(0, 0.3))
        before = sum(len(client.answers) for client in clients)
        server.process.send_signal([signal.SIGTERM, signal.SIGINT][number % 2])
        for client in clients:
            client.join(30)
        answers = [answer for client in clients for answer in client.answers]
        with storm.trial("servers told to stop under load"), storm.trial("requests to these servers", len(answers)):
            assert all(answer == (200, 2) for answer in answers)
            assert all(client.closed for client in clients)
            assert len(answers) >= before + len(clients) - 1  # the requests of the moment
            assert server.process.wait(15) == 0
            assert "Traceback" not in server.process.stderr.read()
            with pytest.raises(ConnectionRefusedError):
                server.connect()
