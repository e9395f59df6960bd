"""A database service that keeps its users inside their quotas with Delimiter. README.md says how to read it."""
