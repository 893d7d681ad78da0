"""The command line `ta`: one file a command, nothing heavy at module level."""
