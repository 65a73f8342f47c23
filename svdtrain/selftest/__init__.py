"""What a user can repeat on his own machine: kills that change nothing, and faults that are answered as promised."""
