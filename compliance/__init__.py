"""Explains: maps what the product does to the controls that assessors ask for.

Nothing is claimed here yet. May import `runtime`, `security` and `audit`; never `appliance`.
"""
