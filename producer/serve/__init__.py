"""`vetline serve`: the HTTP door for services in other languages. Its libraries come with the extra `serve`."""
