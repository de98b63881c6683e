"""Options, YAML files, the command line and its help."""
