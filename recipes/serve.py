"""Answer requests for tags over HTTP: `hf_tagger serve`.

    hf_tagger serve runs/my-shop/onnx_int8
    curl http://127.0.0.1:8000/tags -H 'Content-Type: application/json' -d '{"inputs": {"title": "Linen shirt"}}'
    curl http://127.0.0.1:8000/tags -F title='Linen shirt' -F image=@photo.jpg -F parameters='{"top_k": 3}'
    hf_tagger serve runs/my-shop/onnx_int8 --host 0.0.0.0 --token secret.txt

MODEL is a folder that recipes/export.py wrote (starts without torch, the fastest on a CPU), a model folder, an adapter
folder or a Hub id. Photos come as base64 in JSON or as files in a form. Requests of many clients share the runs of the
model. /docs describes the requests, /health answers while it is ready, /metrics is for Prometheus. SIGTERM and Ctrl-C
stop it when all that it took in is answered, or after --max_stop_seconds. With --token, clients send the header
`Authorization: Bearer TOKEN`; without, it listens to this machine alone, unless --open_to_all says otherwise. Requests
of each client are counted where --max_client_requests says how many a minute.
"""

import argparse
import os
import signal
import socket
import sys
from dataclasses import fields
from pathlib import Path

from hf_tagger import UserError, cli
from hf_tagger.deployment.limits import Limits
from hf_tagger.deployment.rate_limit import PROXY_HELP, proxy_addresses


@cli.recipe
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    # uvicorn raises the signal again when all is answered; before it runs, nothing waits for an answer.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        import uvicorn

        from hf_tagger.deployment.connections import guarded
        from hf_tagger.deployment.protection import check_listening
        from hf_tagger.deployment.server import DrainingServer, create_app
    except ImportError as error:
        raise UserError(f"{error}: pip install 'hf_tagger[serve]'") from error
    from hf_tagger.deployment.engines import open_engine

    limits = Limits(**{field.name: getattr(options, f"max_{field.name}") for field in fields(Limits)})
    try:
        token = read_token(options.token) if options.token else None
        check_listening(options.host, token is not None, options.open_to_all, "--token FILE")
        engine = open_engine(options.model, options.threads)
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
        # An answer is written in two parts, and the second would wait 40 ms for a client's delayed acknowledgement.
        # asyncio sees to it only for sockets that name their protocol; connections inherit it from the listener.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(str(error)) from error
    app = create_app(engine, limits, options.batch_size, options.num_workers, options.allow_urls, token)
    host, port = listener.getsockname()[:2]
    cli.say(f"serve: {options.model} at http://{host}:{port}/tags, described at /docs")
    # Longer than the minute that balancers keep a connection, lest it is closed while a request is on its way.
    config = uvicorn.Config(app, http=guarded(limits), ws="none", log_level="warning", access_log=False,
                            timeout_keep_alive=75, timeout_graceful_shutdown=int(limits.stop_seconds),
                            forwarded_allow_ips=options.trusted_proxy)
    try:
        DrainingServer(config).run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit):
        pass
    if not app.state.stopped:  # the model is at work on what nobody waits for any more; Python would crash inside it
        os._exit(0)


def read_token(path: str) -> str:
    """The token in a file, in which it does not show among the machine's processes. Raises UserError, OSError."""
    token = Path(path).read_text(encoding="utf-8").strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{path} holds no token: write at least 16 letters and digits into it")
    return token


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="exported folder, model folder, adapter folder or Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--threads", type=int, help="threads that the model computes with (default: all cores)")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that read photos")
    parser.add_argument("--batch_size", type=int, default=32, help="products per run of the model, at most")
    parser.add_argument("--token", metavar="FILE", help="clients have to send what stands in this file")
    parser.add_argument("--open_to_all", action="store_true", help="ask nobody for a token, wherever it listens")
    parser.add_argument("--trusted_proxy", type=proxy_addresses, default="", metavar="ADDRESS", help=PROXY_HELP)
    parser.add_argument("--allow_urls", action="store_true",
                        help="fetch photos from public http(s) addresses (give it more --num_workers)")
    for limit in fields(Limits):
        parser.add_argument(f"--max_{limit.name}", type=limit.type, default=limit.default, metavar="N",
                            help=f"{limit.metadata['help']} (default: {limit.default})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
