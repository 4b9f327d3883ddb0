"""What computes: numpy and torch. It knows no window, no terminal and no progress bar."""
