"""Who is logged in to the review page, kept in a file: a restart of the page logs nobody out."""

import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from pathlib import Path

DAYS = 30  # until one has to log in again


class Logins(dict):
    """Gradio's table of logged-in reviewers, {token in the browser's cookie: name}, which writes itself to a file at
    every change. The file holds the tokens and is its owner's alone, as the one with the passwords should be.

    Args:
        path: of the file. One that cannot be written costs a line of warning: who is logged in is then forgotten with
            the process.
        people: {name: password}. Who is no longer among them, or has another password now, has to log in again.
    """

    def __init__(self, path: Path, people: dict[str, str]):
        self.path, self.people = path, people
        self.cookie, self._since = secrets.token_urlsafe(16), {}
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.cookie = kept["cookie"]
            for token, (name, since, proof) in kept["tokens"].items():
                if name in people and time.time() - since < DAYS * 86400 and hmac.compare_digest(
                        proof, self._proof(token, name)):
                    super().__setitem__(token, name)
                    self._since[token] = since
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"hf_tagger review: {path} is passed over, all have to log in again: {error}", file=sys.stderr)

    def __setitem__(self, token: str, name: str) -> None:
        super().__setitem__(token, name)
        self._since[token] = time.time()
        self._write()

    def __delitem__(self, token: str) -> None:
        super().__delitem__(token)
        self._write()

    def get(self, token: str | None, default: str | None = None) -> str | None:
        fresh = token in self and time.time() - self._since[token] < DAYS * 86400
        return self[token] if fresh else default

    def _write(self) -> None:
        tokens = {token: [name, self._since[token], self._proof(token, name)] for token, name in self.items()
                  if self.get(token)}
        waiting = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            with open(os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({"cookie": self.cookie, "tokens": tokens}, file)
            os.replace(waiting, self.path)
        except OSError as error:
            print(f"hf_tagger review: a restart will log everybody out: {error}", file=sys.stderr)

    def _proof(self, token: str, name: str) -> str:
        """That a token was given for the password that the name has now."""
        return hmac.new(self.people[name].encode(), f"{token} {name}".encode(), hashlib.sha256).hexdigest()
