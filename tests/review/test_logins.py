"""Who is logged in to the review page, and for how long."""

import http.client
import json
import os
import time
from urllib.parse import urlencode, urlparse

import gradio as gr
import pytest

from hf_tagger.review import logins, page
from hf_tagger.review.logins import Logins

PEOPLE = [("ana", "long enough"), ("ben", "as long as that")]


@pytest.fixture
def serve(tmp_path):
    """A function that starts a page, on the port of the one before, which it stops: its address."""
    running = []

    def start(people=PEOPLE, **options):
        port = stop()
        with gr.Blocks(analytics_enabled=False) as app:
            gr.Textbox()
        running.append(app)
        return urlparse(page.launch(app, port=port, people=people, logins=tmp_path / "people.txt", block=False,
                                    quiet=True, **options))

    def stop():
        if not running:
            return None
        app = running.pop()
        app.close()
        return app.server_port

    yield start
    stop()


def ask(url, path="/config", fields=None, **headers):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    body = None if fields is None else urlencode(fields)
    if fields is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection.request("GET" if fields is None else "POST", path, body, headers)
    response = connection.getresponse()
    response.read()
    return response


def log_in(url, name, password, **headers):
    """(status, cookie)"""
    response = ask(url, "/login", {"username": name, "password": password}, **headers)
    cookies = [cookie.partition(";")[0] for cookie in response.headers.get_all("Set-Cookie", [])]
    return response.status, "; ".join(cookies)


def test_who_is_logged_in_stays_so_when_the_page_is_started_again(serve, tmp_path):
    url = serve()
    (_, ana), (_, ben) = (log_in(url, *person) for person in PEOPLE)
    assert ask(url, Cookie=ana).status == 200
    (kept,) = tmp_path.glob("people.txt.*")
    assert kept.name == f"people.txt.{url.port}.logins" and kept.stat().st_mode & 0o777 == 0o600

    url = serve()
    assert [ask(url, Cookie=cookie).status for cookie in (ana, ben, ana.replace("=", "=x"))] == [200, 200, 401]
    ask(url, "/logout", Cookie=ben)

    url = serve()
    assert [ask(url, Cookie=cookie).status for cookie in (ana, ben)] == [200, 401]

    url = serve([("ana", "another password")])
    assert ask(url, Cookie=ana).status == 401


def test_a_log_in_ends_after_a_month(tmp_path, monkeypatch):
    kept = Logins(tmp_path / "logins", dict(PEOPLE))
    kept["token"] = "ana"
    assert Logins(tmp_path / "logins", dict(PEOPLE)).get("token") == "ana"
    now = time.time()
    monkeypatch.setattr(logins.time, "time", lambda: now + 31 * 86400)
    assert kept.get("token") is None and Logins(tmp_path / "logins", dict(PEOPLE)).get("token") is None
    kept["other"] = "ben"
    assert list(json.loads((tmp_path / "logins").read_text())["tokens"]) == ["other"]


@pytest.mark.parametrize("text", ["", "[]", '{"cookie": "a", "tokens": {"b": 1}}', '{"tokens": {}}'])
def test_a_damaged_file_costs_a_log_in_and_no_more(tmp_path, capsys, text):
    (tmp_path / "logins").write_text(text)
    kept = Logins(tmp_path / "logins", dict(PEOPLE))
    assert not kept and "all have to log in again" in capsys.readouterr().err
    kept["token"] = "ana"
    assert Logins(tmp_path / "logins", dict(PEOPLE)).get("token") == "ana"


def test_where_nothing_can_be_kept_it_is_said(tmp_path, capsys):
    kept = Logins(tmp_path / "nowhere" / "logins", dict(PEOPLE))
    kept["token"] = "ana"
    assert kept.get("token") == "ana" and "a restart will log everybody out" in capsys.readouterr().err


def test_passwords_cannot_be_tried_without_end(serve, monkeypatch):
    monkeypatch.setattr(page, "ATTEMPTS", 3)
    url = serve()
    _, ana = log_in(url, *PEOPLE[0])
    tried = [log_in(url, "ben", f"guess {number}", **{"X-Forwarded-For": f"192.0.2.{number}"})[0]
             for number in range(4)]
    assert tried == [400, 400, 429, 429]
    refused = ask(url, "/login/", {"username": "ben", "password": PEOPLE[1][1]})
    assert refused.status == 429 and 0 < int(refused.headers["Retry-After"]) <= 20
    assert ask(url, Cookie=ana).status == 200

    url = serve(trusted_proxy="127.0.0.1")
    tried = [log_in(url, "ben", "guess", **{"X-Forwarded-For": f"192.0.2.{number}"})[0] for number in range(5)]
    assert tried == [400] * 5


@pytest.fixture(autouse=True)
def environment():
    before = os.environ.pop("FORWARDED_ALLOW_IPS", None)
    yield
    os.environ.pop("FORWARDED_ALLOW_IPS", None)
    if before is not None:
        os.environ["FORWARDED_ALLOW_IPS"] = before
