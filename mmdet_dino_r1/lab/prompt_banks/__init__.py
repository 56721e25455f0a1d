"""What a prompt bank holds: statistics and figures."""
