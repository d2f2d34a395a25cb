"""Webhooks: verdicts sent to other people's servers, signed, in order, and held up by nobody else's."""
