"""Suites that measure cost: planned and resumed like others, one cell at a time, with the device to itself."""
