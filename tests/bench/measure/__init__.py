"""What benchmarks share: taking turns, what the machine is, tables and raw figures, switches and guests."""
