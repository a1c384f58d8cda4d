"""What commands show: on a terminal, and as pages."""
