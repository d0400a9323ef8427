"""The record: its schema, its key, the closed set of statuses, the store and its claims."""
