"""What runs inside a guest before its own programs do, and what it says: initramfs, agent, sessions."""
