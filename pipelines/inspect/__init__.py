"""What a source holds, whether a declaration fits it, and a first draft of one."""
