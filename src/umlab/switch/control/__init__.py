"""Control protocols of a switch: machines that are told the time and the frames, and say what to send."""
