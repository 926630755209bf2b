"""The operations everything rests on, one folder each: the contract, and a backend a file."""
