"""The pure switch: model, FDB, reference core, events and counters. Time comes in as ``now_ns``."""
