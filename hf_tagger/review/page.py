"""The review page: a Gradio app of four tabs that loads nothing from other machines."""

import os
from functools import partial
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from hf_tagger import UserError
from hf_tagger.deployment.protection import Protection, is_loopback
from hf_tagger.deployment.rate_limit import RateLimit
from hf_tagger.review.logins import Logins
from hf_tagger.review.queue import CONFIDENCE, SHOW, Filters
from hf_tagger.review.session import MAX_TAG, ReviewDesk, Session, check_length
from hf_tagger.review.try_it import try_it_tab
from hf_tagger.review.views import bar_view, card_view, product_view, progress_view, proposals_view

HERE = Path(__file__).parent
TITLE = "Review tags"
ANY = "any"
ATTEMPTS = 10  # to log in, of one client in a minute
# What browsers may do with the page; Gradio's own scripts stand in it, and are made of strings.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
          "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors ")
STRATEGIES = {
    "margin": "closest calls", "entropy": "most undecided", "label_cost": "most corrections expected",
    "rare_tags": "rare tags", "mix": "close calls and rare tags",
    "k_center": "unlike what was judged", "catalogue": "as in the catalogue",
}  # fmt: skip
SHOWN = dict(zip(SHOW, ("to judge", "judged by nobody", "second opinion", "judged by me", "reviewers differ",
                        "changed since"), strict=True))
CONFIDENT = dict(zip(CONFIDENCE, ("any", "below 0.5", "0.5 to 0.8", "above 0.8"), strict=True))


def build_page(desk: ReviewDesk, reviewer: str = "", speech: str | None = None) -> gr.Blocks:
    """
    Args:
        reviewer: name of the reviewer, unless another one is typed or has logged in.
        speech: checkpoint of a speech recogniser, for the microphone of the try-it tab.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        # Reloading a page starts a new session: the browser remembers the reviewer, the product and the filters.
        memory = gr.BrowserState({"reviewer": reviewer, "product": None, "filters": None},
                                 storage_key="hf_tagger-review", secret="hf_tagger")
        session = gr.State(Session())
        with gr.Tab("Review"):
            with gr.Row(elem_id="top"):
                name = gr.Textbox(label="Your name", show_label=False, placeholder="Your name", max_lines=1,
                                  min_width=120, scale=1, container=False, elem_id="reviewer")
                bar = _html("bar", scale=4, min_width=180)
            with gr.Accordion("Filters and order", open=False, elem_id="filters"):
                filters = _filters(desk)
                language = filters[1]
            with gr.Row():
                with gr.Column(scale=2, min_width=300, elem_id="look-column"):
                    look = _html("look")
                with gr.Column(scale=3, min_width=300):
                    card = _html("card", js_on_load=_read("card.js"))
                    _html("add", _read("add.html"), js_on_load=_read("add.js"), server_functions=[_suggest(desk)])
                    _html("actions", _read("actions.html"), js_on_load=_read("actions.js"))
        with gr.Tab("Try it"):
            try_it_tab(desk.predictions, speech)
        with gr.Tab("New tags") as proposed_tab:
            proposed = _html("proposed", js_on_load=_read("proposals.js"))
        with gr.Tab("Progress") as progress_tab:
            progress = _html("progress")
        timer = gr.Timer(1.5)

        views, quick = [bar, look, card, session, memory], {"show_progress": "hidden", "api_visibility": "private"}
        shown = partial(_shown, desk)

        def reviewer_of(request: gr.Request, name: str | None) -> str:
            return (request.username or name or "").strip()[:MAX_TAG]

        def go_on(opened: Session, kept: dict, request: gr.Request) -> None:
            opened.reviewer = reviewer_of(request, kept["reviewer"])
            opened.filters = desk.queue.kept_filters(kept.get("filters"))
            desk.open(opened, kept["product"])

        def start(kept: dict, request: gr.Request):
            go_on(opened := Session(), kept, request)
            opened.languages = _languages(desk, opened)
            chosen = [gr.Dropdown(value=value or ANY) for value in vars(opened.filters).values()]
            chosen[1] = gr.Dropdown(choices=opened.languages, value=opened.filters.language or ANY)
            return *shown(opened, None), gr.Textbox(opened.reviewer, interactive=not request.username), *chosen

        def tick(opened: Session):
            if opened.step == 0:  # `start` is still at work: what it gives must not be overwritten
                return [gr.skip()] * (len(views) + 2)
            finished, before = desk.predictions.finished, opened.row
            if before is None:
                desk.open(opened)
            seen = _languages(desk, opened)
            new = gr.Dropdown(choices=seen) if seen != opened.languages else gr.skip()
            opened.languages = seen
            return *shown(opened, before), gr.Timer(active=not finished), new

        def act(opened: Session, kept: dict, request: gr.Request, event: gr.EventData):
            before, data = opened.row, event._data
            if opened.step == 0:  # the server was started again under a page that is still open
                go_on(opened, kept, request)
            if data["do"] == "judge":
                desk.judge(opened, data["product"], data["attribute"], data["tag"], data["decision"])
            elif data["do"] == "add":
                desk.add(opened, data["product"], data["tag"], data["attribute"])
            elif data["do"] == "accept_rest":
                desk.accept_rest(opened, data["product"])
            else:
                {"next": desk.next, "back": desk.back, "undo": desk.undo}[data["do"]](opened)
            return shown(opened, before)

        def choose(opened: Session, name: str, request: gr.Request, *chosen: str):
            filters = Filters(*(None if value == ANY and field in ("attribute", "language") else value
                                for field, value in zip(vars(opened.filters), chosen, strict=True)))
            stays = desk.product(opened) if filters == opened.filters else None
            opened.reviewer, opened.filters = reviewer_of(request, name), filters
            desk.open(opened, stays and stays.id)
            return shown(opened, None)

        def rule(opened: Session, event: gr.EventData):
            if not opened.reviewer:
                return proposals_view(desk, "Say who you are first: type your name under “Review”.")
            try:
                check_length(event.tag)
                desk.store.rule(event.attribute, event.tag, event.ruling, opened.reviewer)
            except (ValueError, UserError) as error:
                return proposals_view(desk, str(error))
            return proposals_view(desk)

        # "multiple" and one at a time: keys pressed faster than the disk writes are all handled, in order.
        in_turn = quick | {"concurrency_limit": 1, "concurrency_id": "judging"}
        judging = in_turn | {"trigger_mode": "multiple"}
        app.load(start, [memory], [*views, name, *filters], **quick)
        timer.tick(tick, [session], [*views, timer, language], **in_turn)
        card.act(act, [session, memory], views, **judging)
        gr.on([name.blur, name.submit, *(one.input for one in filters)], choose, [session, name, *filters], views,
              **judging)
        proposed_tab.select(lambda: proposals_view(desk), None, proposed, **quick)
        proposed.rule(rule, [session], proposed, **quick)
        progress_tab.select(lambda: progress_view(desk), None, progress, **quick)
    return app


def launch(app: gr.Blocks, host: str | None = "127.0.0.1", port: int | None = None,
           people: list[tuple[str, str]] | None = None, logins: str | Path | None = None, trusted_proxy: str = "",
           block: bool = True, quiet: bool = False) -> str:
    """Serves the page until it is stopped, or returns its address at once if not `block`.

    Args:
        host: address to listen on; None: that of the environment (in a Space).
        port: None: the first free one from 7860.
        people: (name, password) of those who may log in; None: whoever reaches the page may use it. One that answers
            this machine alone then takes no request that is addressed to another name.
        logins: who is logged in is kept in LOGINS.PORT.logins; None: until the page stops.
        trusted_proxy: addresses and networks whose X-Forwarded-For is believed, for the limit of log-ins.
    """
    local = people is None and host is not None and is_loopback(host)
    protection = Middleware(Protection, policy=POLICY + ("'self' https://huggingface.co" if host is None else "'none'"),
                            hosts=("localhost", "127.0.0.1", "[::1]", host) if local else None,
                            logins=people and RateLimit(ATTEMPTS))
    os.environ["FORWARDED_ALLOW_IPS"] = trusted_proxy  # for uvicorn, which Gradio starts without asking
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app.launch(server_name=host, server_port=port, share=False, theme=theme, css_paths=HERE / "page.css", auth=people,
               footer_links=[], ssr_mode=False, pwa=False, quiet=quiet, max_file_size="20mb", prevent_thread_lock=True,
               app_kwargs={"middleware": [protection]})
    if people and logins:
        kept = Logins(Path(f"{logins}.{app.server_port}.logins"), dict(people))
        app.app.cookie_id, app.app.tokens = kept.cookie, kept  # Gradio's own forget with the process
    if block:
        app.block_thread()
    return app.local_url


def _filters(desk: ReviewDesk) -> list[gr.components.Component]:
    """The fields of `Filters`, in their order."""
    queue = desk.queue
    attributes = [ANY, *(entry["name"] for entry in desk.attributes)]
    with gr.Row():
        attribute = gr.Dropdown(attributes, value=ANY, label="Attribute", min_width=140, elem_id="attribute")
        # Any value, for a server that was started again has not read which languages there are.
        language = gr.Dropdown([ANY], value=ANY, label="Language", min_width=110, allow_custom_value=True,
                               elem_id="language")
        confidence = gr.Dropdown([(label, value) for value, label in CONFIDENT.items()], value="any",
                                 label="Confidence", min_width=110)
        show = gr.Dropdown([(label, value) for value, label in SHOWN.items()], value="open", label="Show",
                           min_width=160, elem_id="show")
        order = gr.Dropdown([(STRATEGIES[name], name) for name in queue.strategies], value=queue.strategies[0],
                            label="Order", min_width=160)
    return [attribute, language, confidence, show, order]


def _html(name: str, value: str | None = None, **options) -> gr.HTML:
    return gr.HTML(value, elem_id=name, apply_default_css=False, **options)


def _shown(desk: ReviewDesk, session: Session, before: int | None) -> list:
    """The views; the product only if it is not that of the row `before`, because its photos are most of the page."""
    product = desk.product(session)
    same = session.row == before and product is not None
    return [bar_view(desk, session), gr.skip() if same else product_view(desk, session), card_view(desk, session),
            session, {"reviewer": session.reviewer, "product": product and product.id,
                      "filters": vars(session.filters)}]


def _languages(desk: ReviewDesk, session: Session) -> list[str]:
    return list(dict.fromkeys(filter(None, [ANY, *desk.predictions.languages, session.filters.language])))


def _suggest(desk: ReviewDesk):
    def suggest(text: str) -> list[dict]:
        return [{"tag": tag, "attribute": attribute, "known": known} for tag, attribute, known in desk.suggest(text)]

    return suggest


def _read(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8")
