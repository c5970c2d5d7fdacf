"""The `hf_tagger serve` command as a process: it starts without torch, and loses nothing when it is told to stop."""

import http.client
import json
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hf_tagger import cli
from tests.deployment import hostile
from tests.processes import ROOT

SERVE = [sys.executable, "-m", "hf_tagger.cli", "serve"]
BODY = json.dumps({"inputs": ["red mug", "blue dress"]})


@pytest.fixture
def serve(exported):
    """A function that starts the server: (process, its port)."""
    started = []

    def start(*arguments, command=SERVE):
        process = subprocess.Popen([*command, str(exported), "--port", "0", "--threads", "1", *arguments], cwd=ROOT,
                                   stderr=subprocess.PIPE, text=True)
        started.append(process)
        line = process.stderr.readline()
        assert "/tags" in line, line + process.stderr.read()
        return process, int(line.partition("http://127.0.0.1:")[2].partition("/")[0])

    yield start
    for process in started:
        process.kill()
        process.wait()


# Prints which of the two it has imported, and nothing else, as it ends.
WITHOUT_TORCH = [sys.executable, "-c", "import atexit, sys; from hf_tagger.cli import main; atexit.register(lambda: "
                 "print(*{'torch', 'transformers'} & sys.modules.keys(), file=sys.stderr)); main()", "serve"]


def test_without_torch_it_answers_at_once_and_what_came_before_it_was_told_to_stop(serve):
    process, port = serve(command=WITHOUT_TORCH)
    kept, sending = (http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2))

    def answered(connection):
        response = connection.getresponse()
        start = time.perf_counter()
        assert response.status == 200 and len(json.loads(response.read())) == 2
        return time.perf_counter() - start, response.headers["Connection"]

    gaps = []
    for _ in range(15):
        kept.request("POST", "/tags", BODY, {"Content-Type": "application/json"})
        gap, after = answered(kept)
        gaps.append(gap)
        assert after != "close"
    assert sorted(gaps)[7] < 0.02, "an answer does not wait for its headers to be acknowledged"
    sending.putrequest("POST", "/tags")
    sending.putheader("Content-Type", "application/json")
    sending.putheader("Content-Length", str(len(BODY)))
    sending.endheaders(BODY[:10].encode())
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    kept.request("POST", "/tags", BODY, {"Content-Type": "application/json"})  # a connection that was idle till then
    assert answered(kept)[1] == "close"
    time.sleep(1.1)  # past the time in which it still takes new requests
    assert process.poll() is None
    sending.send(BODY[10:].encode())
    answered(sending)
    assert process.wait(15) == 0
    assert process.stderr.read() == "\n"


@pytest.mark.parametrize("thread", ["read", "run"])
def test_told_to_stop_it_waits_for_nobody_longer_than_it_was_told(serve, thread):
    slow = {"read": "engines.OnnxTagger.preprocess", "run": "engines.OnnxTagger.tag_batch"}[thread]
    code = f"import sys, time; from hf_tagger.deployment import engines; {slow} = lambda *_, **__: time.sleep(120); " \
           "from hf_tagger.cli import main; sys.exit(main())"
    process, port = serve("--max_stop_seconds", "1", command=[sys.executable, "-c", code, "serve"])
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2)]
    connections[0].request("POST", "/tags", BODY, {"Content-Type": "application/json"})
    connections[1].putrequest("POST", "/tags")
    connections[1].putheader("Content-Type", "application/json")
    connections[1].putheader("Content-Length", "100")
    connections[1].endheaders(b"{")  # and nothing more
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert 1 <= time.monotonic() - start < 7


@pytest.mark.parametrize(("arguments", "status", "message"), [
    ([], 0, "Answer requests for tags over HTTP"),
    (["sreve"], 2, "no command 'sreve'"),
    (["serve", "nothing/here"], 2, "serve: "),
    (["serve", "{exported}", "--host", "no.such.host.invalid"], 2, "serve: "),
    (["serve", "{exported}", "--host", "0.0.0.0"], 2, "give --token FILE, or say --open_to_all"),
    (["serve", "{exported}", "--host", "0.0.0.0", "--token", "{exported}/short.txt"], 2, "short.txt holds no token"),
    (["serve", "{exported}", "--token", "nothing/here"], 2, "serve: "),
])
def test_says_what_is_wrong_with_a_command(exported, monkeypatch, capsys, arguments, status, message):
    monkeypatch.setattr(sys, "argv", ["hf_tagger", *(argument.format(exported=exported) for argument in arguments)])
    (exported / "short.txt").write_text("secret")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main())
    assert ended.value.code == status
    signal.signal(signal.SIGTERM, before)
    printed = capsys.readouterr()
    assert message in (printed.err if status else printed.out)


def test_500_hostile_requests_fit_into_two_gibibytes(serve):
    process, port = serve("--num_workers", "2")
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
    draw = random.Random(0)
    large, small = [], []
    for request in hostile.cheap():
        (large if len(request[0]) > 2**20 else small).append(request)
    requests = [*hostile.dear(), *draw.choices(large, k=40)]
    requests += draw.choices(small, k=500 - len(requests))
    draw.shuffle(requests)
    half_open = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for client in half_open:
        client.sendall(b"POST /tags HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n[")

    def send(request):
        body, kind = request
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/tags", body, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, len(response.read())
        except ConnectionError:  # answered and closed before all was sent
            return 413, 0

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, requests))
    assert {status for status, _ in answers} <= {200, 400, 413, 422, 503} and len(answers) == 500
    assert max(length for _, length in answers) < 200_000
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/tags", BODY, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 2 * 2**20
