"""How files are written: list cells, columns, dialects, lines, documents."""
