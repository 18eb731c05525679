"""The command line: parse, resolve, call the library, show. No maths."""
