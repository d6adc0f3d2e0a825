"""Sources with a folder or a file per episode: tables, NumPy arrays, images, videos and texts."""
