"""A Hub in miniature: a real HTTP server with the endpoints that pushing and loading a model needs, kept in memory."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeHub(ThreadingHTTPServer):
    """Use as a context manager; `repos` is {repo id: {path: bytes}}, `env` what a client process needs to find it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.env = {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def commit(self, repo):
        digest = hashlib.sha1()
        for path, data in sorted(self.repos[repo].items()):
            digest.update(path.encode() + data)
        return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub, path = self.server, self.path.partition("?")[0]
        if path == "/api/repos/create":
            request = json.loads(body)
            repo = "/".join(filter(None, (request.get("organization") or "shop", request["name"].rpartition("/")[2])))
            hub.repos.setdefault(repo, {})
            self.answer({"url": f"{hub.url}/{repo}", "id": repo, "name": repo})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            self.answer({"files": [self.upload_mode(file["path"]) for file in files]})
        elif match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = json.loads(body)["objects"]
            for entry in objects:
                entry["actions"] = {"upload": {"href": f"{hub.url}/lfs/{entry['oid']}"}}
            self.answer({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self.commit_files(match[1], [json.loads(line) for line in body.splitlines()])
        elif match := re.fullmatch(r"/api/models/(.+)/paths-info/[^/]+", path):
            files = hub.repos[match[1]]
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else []
            self.answer([self.entry(name, files[name]) for name in wanted if name in files])
        else:
            self.missing("NotFound")

    def do_PUT(self):
        oid = self.path.rpartition("/")[2]
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.uploads[oid] = data
        self.answer({})

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            self.answer({"name": "shop", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+(/.+)?", path):
            files = hub.repos.get(match[1], {})
            if match[2]:
                self.missing("EntryNotFound")
            else:
                self.answer([self.entry(name, data) for name, data in sorted(files.items())])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            if match[1] in hub.repos:
                siblings = [{"rfilename": name} for name in sorted(hub.repos[match[1]])]
                sha = hub.commit(match[1])
                self.answer({"id": match[1], "modelId": match[1], "sha": sha, "siblings": siblings, "private": False})
            else:
                self.missing("RepoNotFound")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.serve_file(*match.groups())
        else:
            self.missing("NotFound")

    do_HEAD = do_GET

    def upload_mode(self, path):
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def commit_files(self, repo, lines):
        files = self.server.repos[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.server.commit(repo)
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"})

    def entry(self, name, data):
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def serve_file(self, repo, name):
        if repo not in self.server.repos:
            self.missing("RepoNotFound")
        elif name not in self.server.repos[repo]:
            self.missing("EntryNotFound", self.server.commit(repo))
        else:
            data = self.server.repos[repo][name]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.server.commit(repo)}
            self.send(200, data, headers)

    def answer(self, content):
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def missing(self, code, commit=None):
        headers = {"X-Error-Code": code, "X-Error-Message": f"{self.path}: {code}"}
        self.send(404, b"{}", headers | ({"X-Repo-Commit": commit} if commit else {}))

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass
