"""ROS bags and MCAP files: storage, message types, and topics resampled to one clock."""
