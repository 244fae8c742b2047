"""Tools that the user wrote: called from layers, with all rights of the user's own code."""
