"""Finding passages: documents cut into chunks, embedded, indexed by meaning and by words, and searched."""
