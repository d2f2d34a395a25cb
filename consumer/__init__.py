"""Reads verdicts: the feed, exports, reports, evaluation, and drafts for the DSA Transparency Database."""
