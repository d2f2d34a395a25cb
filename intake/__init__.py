"""Intake: turns a URI into a picture. Fetches bytes within fixed limits, and decodes them in a sandbox."""
