"""The keeper: a small process that holds a lab's guests and descriptors while daemons come and go."""
