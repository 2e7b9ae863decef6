"""Many runs: what to run, running it, tables and curves."""
