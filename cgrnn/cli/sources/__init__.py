"""Sources of `cgrnn prepare`: each module has `add(parser)` and `run(options)`."""
