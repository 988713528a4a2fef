"""Checks of requests before anything is done: every violation at once, from tables of bounds.

    findings.py    collecting violations; numbers, durations, enums, names
    prompts.py     content, sampling, output, run policy
    media.py       uploads and uploaded media
    models.py      models and adapters that are served, or could be
    requests.py    one `check_…` for each of the other requests

Free functions without state; they know limits and the model's facts, and nothing of handlers.
"""
