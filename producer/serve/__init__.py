"""`vetline serve`: the HTTP API for services in other languages. Its libraries come with the extra `serve`."""
