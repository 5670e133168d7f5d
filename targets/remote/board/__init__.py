"""What works on the board: Python 3.6 and its standard library, sent there as one zip file and run as that."""
