"""Reviewers' verdicts on tags: stored, compared, and learned from."""
