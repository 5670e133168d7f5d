"""What a device can do: runtimes, timing, memory and accuracy of an exported model. Imports no torch."""
