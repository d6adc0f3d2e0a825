"""From a source recording to the published dataset, and from there to other formats."""
