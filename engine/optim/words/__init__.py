"""Words: how a small model is asked for new texts, and what is known of the texts that a program has."""
