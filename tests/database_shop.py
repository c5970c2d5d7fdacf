"""The rows of `tests.shops` in a SQLite database: photos as bytes, lists as JSON, as such databases keep them."""

import json
import sqlite3
from pathlib import Path


def write_database(path: Path, rows: list[dict], table: str = "products") -> str:
    """Its URL."""
    cells = [{name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
             for row in rows]
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE {table} ({', '.join(rows[0])})")
        database.executemany(f"INSERT INTO {table} VALUES ({', '.join(f':{name}' for name in rows[0])})", cells)
    database.close()
    return f"sqlite:///{path}"
