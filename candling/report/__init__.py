"""Emitters: one small module a format, each a pure function over audit records.

They lay out what records and verdicts already say and compute nothing.
"""
