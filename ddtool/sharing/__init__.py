"""What goes to the Hub and comes back: facts, cards, push and pull."""
