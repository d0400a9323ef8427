"""One file per raw format; each has ``read(info, raw) -> Task`` and trusts nothing but checked bytes."""
