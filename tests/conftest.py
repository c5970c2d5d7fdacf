"""Tests run side by side, a process for each core. Every process, and all that it starts, computes on one thread (tiny
tensors on contended threads take many times as long), finds this checkout, asks no Hub and shares no cache."""

import fcntl
import gc
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.postgres import postgres_server

HF_HOME = tempfile.mkdtemp(prefix="hf-home-")
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HOME": HF_HOME,
               "PYTHONPATH": str(Path(__file__).parents[1])}  # fmt: skip

# Files that take longest, longest first: they start first, so that no process is left with one at the end. (The second
# makes `exported` while no other asks for it.)
LONGEST = ("recipes/test_finetune", "deployment/test_export", "deployment/test_export_decoder",
           "recipes/lab/test_benchmark", "model/test_saving", "storm/test_training", "recipes/test_search",
           "recipes/test_evaluate", "training/test_distributed", "training/test_threads", "recipes/test_distill",
           "review/test_page", "recipes/test_export", "deployment/test_serve", "storm/test_update",
           "recipes/lab/test_peer", "recipes/test_write_back_shops", "storm/test_export", "model/test_handler",
           "recipes/lab/test_benchmark_suite", "recipes/lab/test_benchmark_training", "storm/test_bulk",
           "storm/test_serve", "training/test_loop", "training/test_backbones", "recipes/test_write_back",
           "recipes/test_tag_catalog", "recipes/lab/test_ablate", "catalog/test_stream",
           "deployment/test_server_limits", "recipes/test_fit_personalization", "test_cli")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


# What all the imports make stays to the end. To look through it for garbage took a fifth of the time of collecting, and
# a twentieth of the tests'.
@pytest.hookimpl(tryfirst=True)
def pytest_collection():
    gc.disable()


def pytest_collection_finish():
    gc.enable()
    gc.freeze()


def pytest_unconfigure():
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture
def fresh_accelerate():
    """accelerate sets precision and device once per process: such a test neither finds nor leaves them."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The folder `onnx` of an exported `bert_tagger()`, in that of its model: exporting takes a third of a minute of
    computing. Of the processes that run tests, the first to ask makes it for all; nobody changes what is in it."""
    from transformers import pipeline

    from hf_tagger.deployment.export import export_tagger
    from hf_tagger.runtime import TAGGER, model_fingerprint
    from tests.deployment.test_export import bert_tagger

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported_tagger"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "onnx" / TAGGER).exists():
            model, processor = bert_tagger()
            pipeline("product-tagging", model=model, processor=processor, device="cpu").save_pretrained(folder)
            export_tagger(model, processor, folder / "onnx", model_fingerprint(folder))
    return folder / "onnx"


@pytest.fixture(scope="session")
def postgres_folder():
    with postgres_server() as folder:
        yield folder


_numbers = itertools.count()


@pytest.fixture
def postgres_url(postgres_folder):
    """A database of the test's own on a real PostgreSQL server; the test is skipped where none can be started."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("pg8000")
    name = f"test{next(_numbers)}"
    server = sqlalchemy.create_engine(f"postgresql+pg8000://ana@/postgres?unix_sock={postgres_folder}/.s.PGSQL.5432",
                                      isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    server.dispose()
    return f"postgresql://ana@/{name}?unix_sock={postgres_folder}/.s.PGSQL.5432"
