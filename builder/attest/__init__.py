"""What is said of an image by those who built and proved it, in forms that others can check."""
