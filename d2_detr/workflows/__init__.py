"""What the commands do, one function per file."""
