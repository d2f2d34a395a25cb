"""Intake: a URI to a picture. Fetches bytes within limits that a stranger cannot move, and decodes them in a sandbox."""
