"""What a user can ask for, one module each. They alone print results."""
