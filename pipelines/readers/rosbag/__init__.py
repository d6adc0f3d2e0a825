"""Bags of ROS messages and MCAP files: storage, message types, and topics on one clock."""
