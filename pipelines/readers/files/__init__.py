"""Read sources in which each episode is a folder or a file of tables, NumPy arrays, images, videos or texts."""
