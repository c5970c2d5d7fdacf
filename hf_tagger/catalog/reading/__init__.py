"""How rows come in: sources, files, databases, and the stream of products read from them."""
