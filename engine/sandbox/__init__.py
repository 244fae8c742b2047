"""Running what a model wrote: Python in an interpreter that reaches nothing, SQL that can only read one file."""
