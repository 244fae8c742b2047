"""The model runtime: from requests to completions, batched, cached, on this machine."""
