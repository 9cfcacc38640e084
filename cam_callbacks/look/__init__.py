"""One look at the probe set → one Record."""
