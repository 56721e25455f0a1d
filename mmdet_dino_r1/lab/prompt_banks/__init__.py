"""What a prompt bank holds: statistics, text, contact sheet."""
