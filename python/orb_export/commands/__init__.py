"""Commands of `orb-export`, one file each, with `register(subparsers)` and `run(arguments)`."""
