"""From a source and its declaration to one published dataset."""
