"""The network: parameters, layers, graph, prompts. Pure: it asks through flows and does no I/O."""
