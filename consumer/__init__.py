"""Reads verdicts: the feed, exports, reports, and drafts for the DSA Transparency Database."""
