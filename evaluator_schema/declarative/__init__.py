"""Specs without code: import paths under an allow-list, JSON, old arguments brought up to date."""
