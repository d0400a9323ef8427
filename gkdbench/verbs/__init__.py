"""The verbs of the command line, a file per theme. Each is a function of parsed arguments that gives an exit code."""
