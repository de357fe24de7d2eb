"""Programs that measured the numbers in the README, and the pieces they share."""
