"""The pure switch: model, FDB, reference forwarding core, events and counters. Time comes in as ``now_ns``."""
