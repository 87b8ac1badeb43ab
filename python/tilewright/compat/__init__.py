"""Modules with the names, arguments and returns of today's packages. docs/python.md lists where behaviour differs."""
