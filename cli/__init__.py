"""The command line: parse, call, print. The one place where featstore meets dvt."""
