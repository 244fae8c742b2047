"""The model runtime in this process: llama.cpp, from the file to the scheduler."""
