"""`oxe demo`: three labs, three declarations, one schema."""
