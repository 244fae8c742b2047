"""What a trace says about the parameters: losses as numbers, critiques as words, failures by their kind."""
