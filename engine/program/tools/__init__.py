"""Tools as programs see them: what they take, how a model calls them, and what they give."""
