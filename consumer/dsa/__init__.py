"""Drafts of statements of reasons under the EU's Digital Services Act (Article 17), for its Transparency Database.

A draft says what Vetline knows. Whether anything is restricted, on what ground and by whose decision is the platform's.
"""
