"""Read ROS bags and MCAP files: decode their messages, and resample the topics to one clock."""
