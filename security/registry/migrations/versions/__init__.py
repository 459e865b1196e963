"""One module a schema version. A version that was released is never changed: the next one is added."""
